{#-
    Incremental strategy `replace_window`: the window's rows go, the window's rows come, by column name, in one transaction.
    `delete+insert` by key would keep rows that vanished from the lake (a correction, an erased visitor, a removed site).
    The model names its local-date column in `meta.window_column` and filters by `in_window` always, also on its first build.
-#}
{% macro get_incremental_replace_window_sql(arg_dict) %}
    {%- set window_column = config.get('meta', {}).get('window_column') -%}
    {%- if not window_column -%}
        {{ exceptions.raise_compiler_error('replace_window needs meta.window_column on ' ~ this.identifier) }}
    {%- endif %}
    delete from {{ arg_dict['target_relation'] }}
    where {{ in_window(window_column) }};

    insert into {{ arg_dict['target_relation'] }} by name
    select * from {{ arg_dict['temp_relation'] }}
{% endmacro %}
