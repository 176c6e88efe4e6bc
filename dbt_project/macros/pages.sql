{#-
    Words pages, events and breakdowns share.
    Belongs here: the key of a page and the sentence that says why measures are NULL. Does not belong here: a vendor's field names.
-#}

{#- Key of dim_page. A view without a URL has no page. -#}
{% macro page_key(site_key, path) -%}
    case when {{ path }} is not null then {{ surrogate_key([site_key, path]) }} end
{%- endmacro %}

{#-
    Why measures are NULL, as `measure=code` joined by a comma; NULL where none is NULL.
    `reasons` maps a measure to the SQL of its code.
-#}
{% macro null_reasons(reasons) -%}
    nullif(concat_ws(
        ', '
        {%- for measure, code in reasons.items() %},
        case when {{ measure }} is null then '{{ measure }}=' || {{ code }} end
        {%- endfor %}
    ), '')
{%- endmacro %}
