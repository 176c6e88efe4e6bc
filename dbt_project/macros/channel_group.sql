{#-
    Channel of a session by ordered rules: campaign words first, then click id, then referrer, then direct.
    References: GA4's default channel group, with AI assistants kept apart. Values: the `channel` column of fct_sessions.
    `referrer_code` is Inspectlet's undocumented source code, of which only `d` (direct) is known.
-#}
{% macro channel_group(utm_source, utm_medium, referrer_host, own_host, landing_url, referrer_code) -%}
    {%- set search = "(^|\\.)(google|bing|duckduckgo|yahoo|ecosia|baidu|yandex|qwant|startpage)\\." -%}
    {%- set social = "(^|\\.)(facebook|instagram|linkedin|twitter|x|reddit|youtube|tiktok|pinterest|mastodon|t)\\.(com|co|social)$|^lnkd\\.in$" -%}
    {%- set assistant = "(^|\\.)(chatgpt|openai|perplexity|claude|gemini\\.google|copilot\\.microsoft)\\." -%}
    case
        when regexp_matches({{ utm_medium }}, '^(cpc|ppc|paid|paidsearch|paid_search|paid-search)$') then 'paid_search'
        when regexp_matches({{ utm_medium }}, '^(paid_?social|social_paid|paid-social)$') then 'paid_social'
        when regexp_matches({{ utm_medium }}, '^(display|banner|cpm|interstitial)$') then 'display'
        when {{ utm_medium }} in ('email', 'e-mail', 'newsletter') or {{ utm_source }} in ('email', 'newsletter') then 'email'
        when {{ utm_medium }} = 'affiliate' then 'affiliates'
        when {{ utm_medium }} in ('social', 'social-network', 'social-media', 'sm') then 'organic_social'
        when {{ utm_medium }} = 'organic' then 'organic_search'
        when {{ utm_medium }} in ('referral', 'link') then 'referral'
        when {{ utm_source }} is not null then 'other_campaign'
        when contains({{ landing_url }}, 'gclid=') or contains({{ landing_url }}, 'msclkid=') then 'paid_search'
        when {{ referrer_host }} = {{ own_host }} then 'internal'
        when regexp_matches({{ referrer_host }}, '{{ assistant }}') then 'ai_assistant'
        when regexp_matches({{ referrer_host }}, '{{ search }}') then 'organic_search'
        when regexp_matches({{ referrer_host }}, '{{ social }}') then 'organic_social'
        when {{ referrer_host }} is not null then 'referral'
        when {{ referrer_code }} is not null and {{ referrer_code }} <> 'd' then 'unknown'
        else 'direct'
    end
{%- endmacro %}
