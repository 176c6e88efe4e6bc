{#-
    Generic tests about the rows of one relation.
    Each is one statement a table, not one a column: a build spends its time in start-up per test, not in scanning.
-#}

{#-
    Key: the combination is never NULL in any part and never repeated.
    With `touched`, a condition on rows, only keys of such rows are looked for, in all rows: what a build did not write is as it was
    tested before.
-#}
{% test unique_combo(model, columns, window_column=none, touched=none) %}
    {%- set names = columns | join(', ') %}
    {% if touched %}
    with
        written as (select {{ names }} from {{ model }} where {{ touched }}),

        alike as (select {{ names }} from {{ model }} semi join written using ({{ names }})),

        keyless as (select {{ names }} from {{ model }} where {{ columns | join(' is null or ') }} is null)

    {% endif %}
    select {{ names }}, count(*) as occurrences
    from {% if touched %}(from alike union all from keyless){% else %}{{ model }}{% endif %}
    {% if window_column %}where {{ in_window(window_column, 1) }}{% endif %}
    group by {{ names }}
    having count(*) > 1 {% for column in columns %} or {{ column }} is null {% endfor %}
{% endtest %}

{#- None of the columns is NULL, on the rows where `row_filter` holds. -#}
{% test not_null_where(model, columns, row_filter='true') %}
    select *
    from {{ model }}
    where
        ({{ row_filter }})
        and ({% for column in columns %}{{ column }} is null{{ ' or ' if not loop.last }}{% endfor %})
{% endtest %}

{#- Numbers lie between inclusive bounds; NULL passes. -#}
{% test accepted_range(model, columns, minimum=none, maximum=none) %}
    select *
    from {{ model }}
    where
        false
        {% for column in columns %}
            {% if minimum is not none %}or {{ column }} < {{ minimum }}{% endif %}
            {% if maximum is not none %}or {{ column }} > {{ maximum }}{% endif %}
        {% endfor %}
{% endtest %}

{#- A statement about one row is true wherever it is known: NULL passes, false fails. -#}
{% test expression_true(model, expression, row_filter='true') %}
    select *
    from {{ model }}
    where ({{ row_filter }}) and not ({{ expression }})
{% endtest %}

{#- Text columns hold only words of a closed list; NULL passes. -#}
{% test values_in(model, vocabularies) %}
    select *
    from {{ model }}
    where
        false
        {% for column, words in vocabularies.items() %}
            or {{ column }} not in ({% for word in words %}'{{ word }}'{{ ', ' if not loop.last }}{% endfor %})
        {% endfor %}
{% endtest %}

{#-
    No text column holds an e-mail address, an IPv4 address or a replay access key.
    Columns are asked of the database, so a column added tomorrow is tested tomorrow.
-#}
{% test no_pii_pattern(model, except_columns=[]) %}
    {%- set texts = [] -%}
    {%- if execute -%}
        {%- for column in adapter.get_columns_in_relation(model) -%}
            {%- if 'CHAR' in column.data_type | upper and column.name not in except_columns -%}
                {%- do texts.append(column.name) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif %}
    select *
    from {{ model }}
    where {{ tested_dates(model) }} and (
        false
        {% for name in texts %}
            or regexp_matches(
                cast({{ name }} as varchar),
                '[A-Za-z0-9._%+-]+(@|%40)[A-Za-z0-9-]+\.[A-Za-z]{2,}|\b(\d{1,3}\.){3}\d{1,3}\b|(?i:accessresourcekey)'
            )
        {% endfor %}
    )
{% endtest %}
