{#-
    Words every vendor's sessions share.
    Belongs here: keys, local dates, and the common definitions of MARTS section 2. Does not belong here: a vendor's field names.
-#}

{#- Stable key of natural-key parts: the first 16 bytes of SHA-256, in hex. Parts are separated by a character no vendor uses. -#}
{% macro surrogate_key(parts) -%}
    left(sha256(concat_ws('‖'{% for part in parts %}, cast({{ part }} as varchar){% endfor %})), 32)
{%- endmacro %}

{#- Calendar date of a UTC instant in a time zone; knows 23- and 25-hour days because the zone database does. -#}
{% macro local_date(utc_column, timezone_column) -%}
    cast(timezone({{ timezone_column }}, timezone('UTC', {{ utc_column }})) as date)
{%- endmacro %}

{#-
    Bounce by the common definition: exactly one distinct page, no conversion, shorter than 10 s where the length is known.
    NULL when neither pages nor length decide it.
-#}
{% macro is_common_bounce(distinct_page_count, has_conversion, duration_seconds) -%}
    case
        when coalesce({{ has_conversion }}, false) then false
        when {{ duration_seconds }} >= {{ var('common_bounce_seconds') }} then false
        when {{ distinct_page_count }} is null then null
        else {{ distinct_page_count }} = 1
    end
{%- endmacro %}

{#- True where a tag or event name starts with a configured conversion prefix. -#}
{% macro is_conversion_name(name_column) -%}
    coalesce(
        {% for prefix in var('conversion_prefixes') -%}
            starts_with(lower({{ name_column }}), '{{ prefix }}'){{ ' or ' if not loop.last }}
        {%- endfor %}, false)
{%- endmacro %}

{#- What a conversion is called here, from a vendor's tag or event name: a goal of `conversion_goals`, else the name's first word. -#}
{% macro conversion_name(name_column) -%}
    {%- set rest = "regexp_replace(lower(" ~ name_column ~ "), '^(converted|conversion)[^a-z0-9]*', '')" -%}
    case
        {% for prefix, goal in var('conversion_goals').items() -%}
        when starts_with({{ rest }}, '{{ prefix }}') then '{{ goal }}'
        {% endfor -%}
        else coalesce(nullif(regexp_extract({{ rest }}, '^[a-z0-9_]+'), ''), 'conversion')
    end
{%- endmacro %}

{#- True for a text that can be a Kameleoon visitor code: tags are free text of the site's visitors. -#}
{% macro is_visitor_code(column) -%}
    coalesce(regexp_full_match({{ column }}, '[!-~]{1,100}'), false)
{%- endmacro %}

{#-
    Which part of a chain a session belongs to: sessions of one visitor at most `common_idle_minutes` apart are a chain, whatever dates it
    goes over. It is cut `common_session_cap_hours` after its start; from the third date on it is cut at each midnight instead, so that
    nobody has to know how long ago it began. A build that sees three dates before a date (`in_window(…, 3, 1)`) therefore cuts its sessions as
    a build of everything does, and a session that lands late changes the two dates after its own, no further (`transform.assets`).
-#}
{% macro common_stretch(chain) -%}
    {%- set first_date = 'min(session_date_local) over (partition by ' ~ chain | join(', ') ~ ')' -%}
    case
        when session_date_local <= {{ first_date }} + 1 then floor(
            epoch(started_at_utc - min(started_at_utc) over (partition by {{ chain | join(', ') }}))
            / ({{ var('common_session_cap_hours') }} * 3600)
        )
        -- Beyond whatever number of stretches fits into two dates.
        else 100 + (session_date_local - {{ first_date }})
    end
{%- endmacro %}
