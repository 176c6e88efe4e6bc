{#-
    The lake as relations.
    Belongs here: where the lake is, which of its rows the models may see, and the window of days a run rebuilds.
    Does not belong here: the meaning of any column.
-#}

{#- Root folder of the lake, from the environment. The default only serves parsing: reading from it fails and says why. -#}
{% macro lake_root() -%}
    {{ env_var('ANALYTICS_PLATFORM_LAKE', 'lake-root-not-set-ANALYTICS_PLATFORM_LAKE') }}
{%- endmacro %}

{#-
    One lake table without its zero-row anchor file and without the partitions a blocking check has refused.
    Columns: the file's own, plus `site` and `day` from the path. A filter on `day` prunes files before they are read:
    that is why this is an ANTI JOIN (a correlated NOT EXISTS reads every file and every column first).
-#}
{% macro lake_source(vendor, table) %}
    (
        select lake.*
        from {{ source(vendor, table) }} as lake
        anti join (
            select
                site_key as site,
                partition_date as day
            from {{ blocked_partitions() }}
            where vendor = '{{ vendor }}' and (table_name = '{{ table }}' or starts_with(table_name, 'truth:'))
        ) as blocked using (site, day)
        where lake.site <> '_anchor'
    )
{% endmacro %}

{#-
    Partitions that failed a blocking check: vendor, table_name, site_key, partition_date. The file always exists. A name that begins
    with `truth:` speaks for all tables of the vendor's day: what must hold between them does not.
-#}
{% macro blocked_partitions() -%}
    read_parquet('{{ lake_root() }}/_blocked/partitions.parquet')
{%- endmacro %}

{#- Sites as the platform is configured: one row per site and vendor. -#}
{% macro configured_sites() -%}
    read_parquet('{{ lake_root() }}/_config/sites.parquet')
{%- endmacro %}

{#-
    True for dates inside the window of this run, widened by `margin_days` on both sides, or by `days_after` on the later one.
    Constant, so it prunes files.
-#}
{% macro in_window(date_column, margin_days=0, days_after=none) -%}
    {%- set margin_after = margin_days if days_after is none else days_after -%}
    {{ date_column }} between {{ window_bound('window_start', -margin_days) }} and {{ window_bound('window_end', margin_after) }}
{%- endmacro %}

{#-
    One end of the window, shifted. A variable wins (a person's `--vars`, a test); the platform names its window in
    DBT_ENV_CUSTOM_ENV_WINDOW_START and _END, which dbt shows to models without parsing the whole project again: another
    `--vars` on every run would cost that, more time than the models take.
-#}
{% macro window_bound(name, shift_days=0) -%}
    {%- set bounds = {'window_start': '0001-01-01', 'window_end': '9999-12-31'} -%}
    {%- set told = var(name, none) or dbt_metadata_envs.get(name | upper) or bounds[name] -%}
    {%- set bound = modules.datetime.date.fromisoformat(told | string) -%}
    {%- set is_open = bound in (modules.datetime.date.min, modules.datetime.date.max) -%}
    date '{{ bound if is_open else bound + modules.datetime.timedelta(days=shift_days) }}'
{%- endmacro %}
