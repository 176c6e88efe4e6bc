{#-
    Recordings: who may see what.
    Belongs here: how a replay link becomes a reference, and where the relations about links live. Does not belong here:
    opening a link (`analytics-platform replay --reveal` finds it in the lake by its reference).
-#}

{#- A link's reference: 24 hex digits that lead back to it for whoever can read the lake, and to nobody else. -#}
{% macro link_reference(url) -%}
    left(sha256('replay link' || chr(31) || {{ url }}), 24)
{%- endmacro %}

{#- A model's `schema` is the schema, not the end of a longer name: `replay` holds what is not read like other marts. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
