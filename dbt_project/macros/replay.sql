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

{#- Sessions of a relation that no model suspects to be bots': the one named by `session_flags`, if there is one. -#}
{% macro without_suspected_bots(relation) -%}
    (
        select * from {{ relation }}
        {% if var('session_flags', none) -%}
        anti join (select session_key from {{ ref(var('session_flags')) }} where is_suspected_bot) using (session_key)
        {%- endif %}
    )
{%- endmacro %}
