{%- set margin_days = var('audience_days') + 2 -%}

with sessions as (

    select * from {{ ref('int_coded_sessions') }}

),

-- Several vendors see the same visit: a date counts once, and conversions are merged already.
active as (

    select distinct site_key, visitor_code, session_date_local as stat_date
    from sessions

),

rage_clicks as (

    select
        sessions.site_key,
        sessions.visitor_code,
        sessions.session_date_local as stat_date,
        count(*) as rage_click_count
    from {{ ref('stg_smartlook__events') }} as events
    inner join sessions
        on
            sessions.vendor = 'smartlook'
            and events.site_key = sessions.site_key
            and events.session_id = sessions.vendor_session_id
    where events.event_type = 'rage_click' and {{ in_window('events.partition_date', margin_days) }}
    group by sessions.site_key, sessions.visitor_code, sessions.session_date_local

),

sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

conversions as (

    select
        conversions.site_key,
        conversions.visitor_code,
        {{ local_date('conversions.converted_at_utc', 'sites.timezone') }} as stat_date,
        count(*) filter (conversions.conversion_name = 'purchase') as purchase_count,
        count(*) filter (conversions.conversion_name = 'signup') as signup_count
    from {{ ref('int_coded_conversions') }} as conversions
    inner join sites on conversions.site_key = sites.site_key
    group by all

),

days as (

    select
        active.site_key,
        active.visitor_code,
        active.stat_date,
        coalesce(conversions.purchase_count, 0) as purchase_count,
        coalesce(conversions.signup_count, 0) as signup_count,
        coalesce(rage_clicks.rage_click_count, 0) as rage_click_count
    from active
    left join conversions using (site_key, visitor_code, stat_date)
    left join rage_clicks using (site_key, visitor_code, stat_date)

)

select * from days
