{#-
    Which rows a generic test looks at.
    Belongs here: the one macro dbt asks. Does not belong here: what a test asserts (tests/generic).

    Of a relation that is replaced by window only the window is tested, and two dates around it: the other rows are as the build left
    them that wrote and tested them. A build without a window tests every row. Rules that hold a relation against another say
    themselves which rows they compare.
-#}
{% macro get_where_subquery(relation) -%}
    {%- set told = config.get('where', '') -%}
    {%- set rule = model.get('test_metadata', {}).get('name') -%}
    {%- set tested = graph.nodes.get(model.get('attached_node')) if execute and graph else none -%}
    {%- set window_column = tested.config.get('meta', {}).get('window_column') if tested else none -%}
    {%- set conditions = [] -%}
    {%- if told -%}{%- do conditions.append('(' ~ told ~ ')') -%}{%- endif -%}
    {%- if window_column and rule not in ('sum_equals', 'row_per_spine') -%}
        {%- do conditions.append(in_window(window_column, 2)) -%}
    {%- endif -%}
    {%- if not conditions -%}{{ return(relation) }}{%- endif -%}
    {{ return('(select * from ' ~ relation ~ ' where ' ~ conditions | join(' and ') ~ ') as ' ~ relation.identifier) }}
{%- endmacro %}
