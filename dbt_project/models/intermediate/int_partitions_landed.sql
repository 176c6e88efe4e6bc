{{ config(materialized='table') }}

{# Read by file name, not by row; naming the staging models all the same makes the lineage true. #}
{% for vendor, table_name in var('spine_tables').items() %}
-- after {{ ref('stg_' ~ vendor ~ '__' ~ table_name).identifier }}
{% endfor %}

with files as (

    {% for vendor, table_name in var('spine_tables').items() %}
    select
        '{{ vendor }}' as vendor,
        '{{ table_name }}' as table_name,
        file as path
    from glob('{{ lake_root() }}/{{ vendor }}/{{ table_name }}/site=*/day=*/part.parquet')
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

partitions as (

    select
        vendor,
        table_name,
        regexp_extract(path, '/site=([^/]+)/day=', 1) as site_key,
        cast(regexp_extract(path, '/day=([0-9]{4}-[0-9]{2}-[0-9]{2})/', 1) as date) as partition_date
    from files

),

marked as (

    select
        partitions.vendor,
        partitions.table_name,
        partitions.site_key,
        partitions.partition_date,
        exists (
            select 1
            from {{ blocked_partitions() }} as blocked
            where
                blocked.vendor = partitions.vendor
                and blocked.site_key = partitions.site_key
                and blocked.partition_date = partitions.partition_date
                and (blocked.table_name = partitions.table_name or starts_with(blocked.table_name, 'truth:'))
        ) as is_blocked
    from partitions
    where
        partitions.site_key <> '_anchor'
        and {{ in_window('partitions.partition_date', 2) }}

)

select * from marked
