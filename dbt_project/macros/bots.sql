{#-
    Bots by what a session itself says.
    Belongs here: the words of user agents. Does not belong here: patterns over many sessions (int_sessions_bot_flagged).
-#}

{#-
    True for a user agent that names itself a bot or a browser without a screen; NULL without a user agent.
    Words of the IAB/ABC kind, kept few: a word that a person's browser may carry flags people
    (CUBOT is a make of phones).
-#}
{% macro is_bot_user_agent(user_agent) -%}
    regexp_matches(
        replace(lower({{ user_agent }}), 'cubot', ''),
        'bot\b|bot/|crawl|spider|slurp|headless|phantomjs|puppeteer|playwright|selenium|lighthouse|pingdom|uptime|scrapy|python-requests|python-urllib|go-http-client|curl/|wget/|java/|facebookexternalhit|bytespider'
    )
{%- endmacro %}
