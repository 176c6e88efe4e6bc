{#-
    Conversions and what they were worth.
    Belongs here: reading money out of text. Does not belong here: which vendor field holds it.
-#}

{#- A number in a text as DECIMAL(18, 4); NULL where the text is anything else. -#}
{% macro amount(text) -%}
    try_cast(nullif(trim(cast({{ text }} as varchar)), '') as decimal(18, 4))
{%- endmacro %}

{#- First of `names` in JSON properties: an array of {name, value}, or an object. Text; NULL where none is there. -#}
{% macro json_property(json_text, names) -%}
    {%- set listed = "'" ~ (names | join("', '")) ~ "'" -%}
    case json_type(try_cast({{ json_text }} as json))
        when 'ARRAY' then json_extract_string(
            list_filter(
                try_cast(try_cast({{ json_text }} as json) as json[]),
                lambda p: lower(json_extract_string(p, '$.name')) in ({{ listed }})
            )[1], '$.value')
        when 'OBJECT' then coalesce(
            {%- for name in names %} json_extract_string(try_cast({{ json_text }} as json), '$.{{ name }}'){{ ',' if not loop.last }}{% endfor %}
        )
    end
{%- endmacro %}

{#- What a goal is called here: the seed's word for the vendor's goal, else the vendor's own in lower case with underscores. -#}
{% macro own_goal_key(vendor_goal) -%}
    coalesce(nullif(trim(regexp_replace(lower({{ vendor_goal }}), '[^a-z0-9]+', '_', 'g'), '_'), ''), 'conversion')
{%- endmacro %}
