{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

days as (

    select
        sessions.vendor,
        sessions.site_key,
        sessions.session_date_local as stat_date,
        any_value(sites.timezone) as timezone,
        cast(count(*) as bigint) as recordings,
        max(sessions.started_at_utc) as last_started_at_utc
    from {{ ref('int_sessions_enriched') }} as sessions
    inner join sites on sessions.site_key = sites.site_key
    where {{ in_window('sessions.session_date_local') }}
    group by sessions.vendor, sessions.site_key, sessions.session_date_local

),

final as (

    select
        vendor,
        site_key,
        stat_date,
        recordings,
        last_started_at_utc,
        timezone('UTC', timezone(timezone, cast(stat_date as timestamp))) as day_starts_at_utc,
        timezone('UTC', timezone(timezone, cast(stat_date + 1 as timestamp))) as day_ends_at_utc
    from days

)

select * from final
