with session_vendors as (

    select
        vendor,
        site_key,
        session_date_local as stat_date,
        nullif(count(distinct vendor_visitor_id), 0) as visitors,
        count(*) as sessions,
        sum(page_count) as views,
        case when count(page_count) > 0 then count(*) filter (page_count = 1) end as bounces,
        avg(duration_seconds) as average_session_seconds
    from {{ ref('int_sessions_enriched') }}
    group by vendor, site_key, session_date_local

),

pirsch as (

    select
        'pirsch' as vendor,
        site_key,
        stat_date,
        visitors,
        sessions,
        views,
        bounces,
        -- The vendor writes 0 where no session was longer than zero: there is no mean then.
        case when sessions > bounces then average_session_seconds end as average_session_seconds
    from {{ ref('stg_pirsch__daily_stats') }}
    where {{ in_window('partition_date') }}

),

kissmetrics as (

    select
        'kissmetrics' as vendor,
        site_key,
        stat_date,
        sessions
    from {{ ref('int_kissmetrics__session_deltas') }}

),

unioned as (

    select * from session_vendors
    union all by name
    select * from pirsch
    union all by name
    select * from kissmetrics

)

select * from unioned
where {{ in_window('stat_date') }}
