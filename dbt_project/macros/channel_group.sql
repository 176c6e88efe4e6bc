{#-
    Channel of a session by ordered rules: campaign words first, then click id, then referrer, then direct.
    References: GA4's default channel group (support.google.com/analytics/answer/9756891), with AI assistants kept apart, and Kissmetrics'
    order (campaign before referrer). `channel_rules` is the only list: the case expression and dim_channel are both made of it.
    `referrer_code` is Inspectlet's undocumented source code, of which only `d` (direct) is known.
-#}

{#- The rules in order: channel, family, condition with the words {utm_source} … in braces, and the rule in words. The last has none. -#}
{% macro channel_rules() -%}
    {%- set search = "(^|\\.)(google|bing|duckduckgo|yahoo|ecosia|baidu|yandex|qwant|startpage)\\." -%}
    {%- set social = "(^|\\.)(facebook|instagram|linkedin|twitter|x|reddit|youtube|tiktok|pinterest|mastodon|t)\\.(com|co|social)$|^lnkd\\.in$" -%}
    {%- set assistant = "(^|\\.)(chatgpt|openai|perplexity|claude|gemini\\.google|copilot\\.microsoft)\\." -%}
    {%- set assistant_words = "^(chatgpt|openai|perplexity|claude|gemini|copilot)(\\.[a-z.]+)?$" -%}
    {{ return([
        ['paid_search', 'paid', "regexp_matches({utm_medium}, '^(cpc|ppc|paid|paidsearch|paid_search|paid-search)$')",
            'utm_medium is cpc, ppc, paid or paid search'],
        ['paid_social', 'paid', "regexp_matches({utm_medium}, '^(paid_?social|social_paid|paid-social)$')",
            'utm_medium is paid social'],
        ['paid_shopping', 'paid', "regexp_matches({utm_medium}, '^(paid[_-]?shopping|shopping[_-]?ads|pla)$')",
            'utm_medium is paid shopping'],
        ['paid_video', 'paid', "regexp_matches({utm_medium}, '^(paid[_-]?video|video[_-]?ads|cpv)$')",
            'utm_medium is paid video or cpv'],
        ['display', 'paid', "regexp_matches({utm_medium}, '^(display|banner|cpm|interstitial)$')",
            'utm_medium is display, banner, cpm or interstitial'],
        ['email', 'owned', "{utm_medium} in ('email', 'e-mail', 'newsletter') or {utm_source} in ('email', 'newsletter')",
            'utm_medium or utm_source is e-mail or newsletter'],
        ['sms', 'owned', "{utm_medium} = 'sms' or {utm_source} = 'sms'", 'utm_medium or utm_source is sms'],
        ['push', 'owned', "{utm_medium} in ('push', 'mobile', 'notification') or {utm_medium} like '%push'",
            'utm_medium is push, mobile or notification'],
        ['affiliates', 'earned', "{utm_medium} in ('affiliate', 'affiliates')", 'utm_medium is affiliate'],
        ['audio', 'earned', "{utm_medium} in ('audio', 'podcast')", 'utm_medium is audio or podcast'],
        ['organic_social', 'earned', "{utm_medium} in ('social', 'social-network', 'social-media', 'sm')", 'utm_medium is social'],
        ['organic_video', 'earned', "{utm_medium} = 'video'", 'utm_medium is video'],
        ['ai_assistant', 'earned', "regexp_matches({utm_source}, '" ~ assistant_words ~ "')", 'utm_source is an AI assistant'],
        ['organic_search', 'earned', "{utm_medium} = 'organic'", 'utm_medium is organic'],
        ['referral', 'earned', "{utm_medium} in ('referral', 'link')", 'utm_medium is referral or link'],
        ['other_campaign', 'other', "{utm_source} is not null", 'any other utm_source'],
        ['paid_search', 'paid', "contains({landing_url}, 'gclid=') or contains({landing_url}, 'msclkid=')",
            'the landing URL carries a click id of a search ad'],
        ['internal', 'none', "{referrer_host} = {own_host}", 'the referrer is the site itself'],
        ['ai_assistant', 'earned', "regexp_matches({referrer_host}, '" ~ assistant ~ "')", 'the referrer is an AI assistant'],
        ['organic_search', 'earned', "regexp_matches({referrer_host}, '" ~ search ~ "')", 'the referrer is a search engine'],
        ['organic_social', 'earned', "regexp_matches({referrer_host}, '" ~ social ~ "')", 'the referrer is a social network'],
        ['referral', 'earned', "{referrer_host} is not null", 'any other referrer'],
        ['unknown', 'none', "{referrer_code} is not null and {referrer_code} <> 'd'", 'a referrer code nobody documented'],
        ['direct', 'none', none, 'nothing of the above'],
    ]) }}
{%- endmacro %}

{% macro channel_group(utm_source, utm_medium, referrer_host, own_host, landing_url, referrer_code) -%}
    {%- set words = {
        '{utm_source}': utm_source, '{utm_medium}': utm_medium, '{referrer_host}': referrer_host,
        '{own_host}': own_host, '{landing_url}': landing_url, '{referrer_code}': referrer_code,
    } -%}
    case
        {%- for channel, family, condition, rule in channel_rules() if condition %}
        {%- set filled = namespace(sql=condition) -%}
        {%- for word, column in words.items() -%}{%- set filled.sql = filled.sql | replace(word, column) -%}{%- endfor %}
        when {{ filled.sql }} then '{{ channel }}'
        {%- endfor %}
        else '{{ channel_rules()[-1][0] }}'
    end
{%- endmacro %}
