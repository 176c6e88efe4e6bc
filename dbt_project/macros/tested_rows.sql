{#-
    Which rows a generic test looks at.
    Belongs here: the one macro dbt asks, and the rule behind it. Does not belong here: what a test asserts (tests/generic).

    Of a relation that is replaced by window only the window is tested, and two dates around it: the other rows are as the build left
    them that wrote and tested them. A build without a window tests every row. Rules that hold a relation against another say
    themselves which rows they compare, and one that asks the database for the relation's columns filters them itself.
-#}
{% macro get_where_subquery(relation) -%}
    {%- set told = config.get('where', '') -%}
    {%- set rule = model.get('test_metadata', {}).get('name') -%}
    {%- set dates = 'true' if rule in ('sum_equals', 'row_per_spine', 'no_pii_pattern') else tested_dates(relation) | trim -%}
    {%- if not told and dates == 'true' -%}{{ return(relation) }}{%- endif -%}
    {{ return('(select * from ' ~ relation ~ ' where ' ~ ('(' ~ told ~ ') and ' if told) ~ dates ~ ') as ' ~ relation.identifier) }}
{%- endmacro %}

{#- Condition on a relation's rows: true where the model names no window column. -#}
{% macro tested_dates(relation) -%}
    {%- set found = namespace(column=none) -%}
    {%- if execute -%}
        {%- for node in graph.nodes.values() if node.resource_type == 'model' and node.alias == relation.identifier -%}
            {%- set found.column = node.config.get('meta', {}).get('window_column') -%}
        {%- endfor -%}
    {%- endif -%}
    {{ in_window(found.column, 2) if found.column else 'true' }}
{%- endmacro %}
