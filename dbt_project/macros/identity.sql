{#-
    Who may be linked.
    Belongs here: the policy. Does not belong here: hashing (Python, before the lake), linking (int_identity_*).
-#}

{#- True where references may be linked. Any other word than the three stops the build: a typing mistake must not link anybody. -#}
{% macro links_identities() -%}
    {%- set policy = var('identity_policy') -%}
    {%- if policy not in ('none', 'pseudonymous', 'strict_eu') -%}
        {{ exceptions.raise_compiler_error("identity_policy is none, pseudonymous or strict_eu, not " ~ policy) }}
    {%- endif -%}
    {{ 'false' if policy == 'none' else 'true' }}
{%- endmacro %}
