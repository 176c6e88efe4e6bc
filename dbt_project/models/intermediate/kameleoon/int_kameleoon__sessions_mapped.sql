with visits as (

    select * from {{ ref('stg_kameleoon__visits') }}
    where {{ in_window('partition_date', 4, 2) }}

),

pages as (

    select
        site_key,
        visitor_code,
        visit_started_at,
        list(url order by page_number) as page_urls,
        max(viewed_at) as last_page_at_utc
    from {{ ref('stg_kameleoon__visit_pages') }}
    where {{ in_window('partition_date', 2) }}
    group by site_key, visitor_code, visit_started_at

),

converted as (

    select distinct site_key, visitor_code, visit_started_at
    from {{ ref('stg_kameleoon__conversions') }}
    where not is_reversal and {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'kameleoon' as vendor,
        visits.site_key,
        visits.partition_date,
        visits.landed_at,
        visits.visitor_code || '-' || epoch_ms(visits.started_at) as vendor_session_id,
        visits.visitor_code as vendor_visitor_id,
        visits.started_at as started_at_utc,
        visits.last_event_at as ended_at_utc,
        visits.duration_seconds,
        case when visits.duration_seconds is not null then 'wallclock' end as duration_source,
        visits.page_count,
        coalesce(pages.page_urls, []) as page_urls,
        converted.visitor_code is not null as has_conversion,
        visits.visit_number = 0 as is_new_visitor,
        visits.landing_url,
        visits.exit_url,
        visits.first_referrer_url as referrer_url,
        cast(null as varchar) as referrer_code,
        visits.country as country_label,
        visits.region,
        visits.device_type as device_label,
        visits.browser as browser_label,
        visits.os as os_label,
        visits.screen_width_px,
        visits.screen_height_px,
        visits.window_width_px as viewport_width_px,
        visits.window_height_px as viewport_height_px,
        cast(null as boolean) as is_starred,
        cast(null as bigint) as note_count,
        case
            when visits.duration_seconds > 7200 then 'longer_than_120_minutes'
            when visits.page_count + visits.conversion_count + visits.exposure_count > 10000 then 'more_than_10000_events'
        end as bot_hint,
        pages.last_page_at_utc
    from visits
    left join pages
        on
            visits.site_key = pages.site_key
            and visits.visitor_code = pages.visitor_code
            and visits.started_at = pages.visit_started_at
    left join converted
        on
            visits.site_key = converted.site_key
            and visits.visitor_code = converted.visitor_code
            and visits.started_at = converted.visit_started_at

)

select * from mapped
