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
