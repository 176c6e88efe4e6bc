{#-
    Incremental strategy `replace_window`: the window's rows go, the window's rows come, by column name, in one transaction.
    `delete+insert` by key would keep rows that vanished from the lake (a correction, an erased visitor, a removed site).
    The model names its local-date column in `meta.window_column` and filters by `in_window` always, also on its first build.

    Rows that depend on lake days further away than the run's window reaches are replaced with a margin: `meta.margin` says how many days
    before and after the window (`before`, `after`) and, where that is not so for every row, for which (`rows`, a condition on the model's
    own columns). The model then filters by `in_replaced_window` with the same margin.
-#}
{% macro get_incremental_replace_window_sql(arg_dict) %}
    {%- set meta = config.get('meta', {}) -%}
    {%- if not meta.get('window_column') -%}
        {{ exceptions.raise_compiler_error('replace_window needs meta.window_column on ' ~ this.identifier) }}
    {%- endif %}
    delete from {{ arg_dict['target_relation'] }}
    where {{ in_replaced_window(meta['window_column'], meta.get('margin', {})) }};

    insert into {{ arg_dict['target_relation'] }} by name
    select * from {{ arg_dict['temp_relation'] }}
{% endmacro %}

{#- True for the rows a build replaces: those of the window, and those within the margin of it. -#}
{% macro in_replaced_window(window_column, margin) -%}
    ({{ in_window(window_column) }}
    {%- if margin %} or ({{ margin.get('rows', 'true') }} and {{ in_window(window_column, margin['before'], margin['after']) }}){% endif %})
{%- endmacro %}
