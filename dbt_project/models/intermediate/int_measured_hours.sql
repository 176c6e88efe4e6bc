{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with measured as (

    select
        vendor,
        site_key,
        stat_date,
        date_trunc('hour', started_at_utc) as hour_start_utc,
        cast(count(*) as bigint) as sessions,
        cast(count(distinct visitor) as bigint) as visitors,
        cast(sum(view_count) as bigint) as views
    from {{ ref('int_session_walks') }}
    where not is_suspected_bot
    group by all

    {% for vendor in var('aggregate_vendors') %}
    union all by name

    select
        '{{ vendor }}' as vendor,
        site_key,
        stat_date,
        hour_start_utc,
        cast(sessions as bigint) as sessions,
        cast(visitors as bigint) as visitors,
        cast(views as bigint) as views
    from {{ ref('int_' ~ vendor ~ '__measured_hours') }}
    {% endfor %}

)

select * from measured
where {{ in_window('stat_date') }}
