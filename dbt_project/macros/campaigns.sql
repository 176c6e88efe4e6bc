{#-
    Campaign words.
    Belongs here: one spelling for what people spell in several ways. Does not belong here: taking words out of a URL (urls.sql), channels.
-#}

{#-
    The word a campaign value is filed under: the alias's canonical word, else the value in lower case. `(unknown)` is a placeholder nobody
    filled in, or a tagged visit without one of the three words every tag should have; `(none)` is a visit without this word.
-#}
{% macro campaign_word(raw, alias, dimension, is_tagged) -%}
    case
        when {{ raw }} is null and {{ is_tagged }} and {{ dimension }} in ('source', 'medium', 'campaign') then '(unknown)'
        when {{ raw }} is null then '(none)'
        when regexp_matches(
            lower(trim({{ raw }})), '^(\(not set\)|\(not provided\)|not set|undefined|null|none|n/a|unknown|\{.*\}|\[.*\]|<.*>|%.*%|\$.*\$)$'
        ) then '(unknown)'
        else coalesce({{ alias }}, lower(trim({{ raw }})))
    end
{%- endmacro %}
