with session_vendors as (

    select
        vendor,
        site_key,
        session_date_local as stat_date,
        nullif(count(distinct vendor_visitor_id), 0) as visitors,
        count(*) as sessions,
        sum(page_count) as views,
        case when count(is_bounce_common) > 0 then count(*) filter (is_bounce_common) end as bounces,
        avg(duration_seconds) as average_session_seconds
    from {{ ref('int_sessions_common') }}
    group by vendor, site_key, session_date_local

),

-- Vendors without session rows keep what means the same on both bases and lose the rest: metric_definitions says which.
others as (

    select
        vendor,
        site_key,
        stat_date,
        visitors,
        sessions,
        views
    from {{ ref('int_daily_native') }}
    where vendor not in ({% for vendor in var('session_vendors') %}'{{ vendor }}'{{ ', ' if not loop.last }}{% endfor %})

),

unioned as (

    select * from session_vendors
    union all by name
    select * from others

)

select * from unioned
where {{ in_window('stat_date') }}
