with sessions as (

    select * from {{ ref('stg_smartlook__sessions') }}
    where {{ in_window('partition_date', 4, 2) }}

),

visitors as (

    select * from {{ ref('stg_smartlook__visitors') }}
    where {{ in_window('partition_date', 2) }}

),

visitor_days as (

    select distinct site_key, partition_date from visitors

),

converted as (

    select distinct site_key, session_id
    from {{ ref('stg_smartlook__events') }}
    where
        event_type = 'custom'
        and {{ is_conversion_name('event_name') }}
        and {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'smartlook' as vendor,
        sessions.site_key,
        sessions.partition_date,
        sessions.landed_at,
        sessions.session_id as vendor_session_id,
        sessions.visitor_id as vendor_visitor_id,
        sessions.started_at as started_at_utc,
        sessions.ended_at as ended_at_utc,
        coalesce(sessions.duration_seconds, epoch(sessions.ended_at - sessions.started_at)) as duration_seconds,
        case
            when sessions.duration_seconds is not null then 'reported'
            when sessions.ended_at is not null then 'wallclock'
        end as duration_source,
        sessions.page_count,
        sessions.page_urls,
        converted.session_id is not null as has_conversion,
        case
            when visitor_days.site_key is null then null
            else coalesce(abs(epoch(visitors.first_seen_at - sessions.started_at)) <= 1, false)
        end as is_new_visitor,
        sessions.landing_url,
        sessions.exit_url,
        sessions.referrer_url,
        cast(null as varchar) as referrer_code,
        coalesce(sessions.country_code, sessions.country_name) as country_label,
        sessions.region,
        sessions.device_type as device_label,
        sessions.browser_name as browser_label,
        -- The vendor names the version too: "Windows 10.0".
        regexp_replace(sessions.os_name, ' [0-9][0-9._]*$', '') as os_label,
        sessions.screen_width_px,
        sessions.screen_height_px,
        cast(null as integer) as viewport_width_px,
        cast(null as integer) as viewport_height_px,
        cast(null as boolean) as is_starred,
        sessions.note_count,
        case when sessions.is_bot_user_agent then 'user_agent' end as bot_hint,
        -- Its URLs carry no times.
        cast(null as timestamp) as last_page_at_utc
    from sessions
    left join visitors
        on
            sessions.site_key = visitors.site_key
            and sessions.visitor_id = visitors.visitor_id
            and sessions.partition_date = visitors.partition_date
    left join visitor_days
        on
            sessions.site_key = visitor_days.site_key
            and sessions.partition_date = visitor_days.partition_date
    left join converted
        on
            sessions.site_key = converted.site_key
            and sessions.session_id = converted.session_id

)

select * from mapped
