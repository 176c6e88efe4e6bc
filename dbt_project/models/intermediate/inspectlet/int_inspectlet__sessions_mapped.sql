with sessions as (

    select * from {{ ref('stg_inspectlet__sessions') }}
    where {{ in_window('partition_date', 4, 2) }}

),

pages as (

    select
        site_key,
        wid,
        sid,
        list(page_url order by page_index) as page_urls,
        max(opened_at) as last_page_at_utc
    from {{ ref('stg_inspectlet__session_pages') }}
    where {{ in_window('partition_date', 2) }}
    group by site_key, wid, sid

),

converted as (

    select distinct site_key, wid, sid
    from {{ ref('stg_inspectlet__session_tags') }}
    where {{ is_conversion_name('tag') }} and {{ in_window('partition_date', 2) }}

),

timed as (

    select
        sessions.*,
        -- A day votes on the unit as one; only where a unit change falls inside the day does a session speak for itself.
        case
            when units.partition_unit in ('milliseconds', 'seconds') then units.partition_unit
            else sessions.duration_unit
        end as unit
    from sessions
    left join {{ ref('int_inspectlet__duration_units') }} as units
        on
            sessions.site_key = units.site_key
            and sessions.partition_date = units.partition_date

),

mapped as (

    select
        'inspectlet' as vendor,
        timed.site_key,
        timed.partition_date,
        timed.landed_at,
        timed.wid || '-' || timed.sid as vendor_session_id,
        cast(timed.uid as varchar) as vendor_visitor_id,
        timed.started_at as started_at_utc,
        timed.ended_at as ended_at_utc,
        case
            when timed.session_duration_raw is null then epoch(timed.ended_at - timed.started_at)
            when timed.unit = 'milliseconds' then timed.session_duration_raw / 1000
            else timed.session_duration_raw
        end as duration_seconds,
        case
            when timed.session_duration_raw is not null then 'inferred'
            when timed.ended_at is not null then 'wallclock'
        end as duration_source,
        timed.num_pages as page_count,
        -- The list of pages may be shorter than the visit: the sample lands and leaves on different pages with one listed.
        list_concat(
            coalesce(pages.page_urls, []),
            list_filter([timed.landing_url, timed.exit_url], lambda url: url is not null)
        ) as page_urls,
        converted.sid is not null as has_conversion,
        timed.is_new_visitor,
        timed.landing_url,
        timed.exit_url,
        cast(null as varchar) as referrer_url,
        timed.referrer_source as referrer_code,
        timed.country_code as country_label,
        cast(null as varchar) as region,
        timed.device_type as device_label,
        timed.browser_name as browser_label,
        timed.os_name as os_label,
        cast(null as integer) as screen_width_px,
        cast(null as integer) as screen_height_px,
        timed.viewport_width_px,
        timed.viewport_height_px,
        timed.is_starred,
        cast(null as bigint) as note_count,
        case when timed.is_bot_user_agent then 'user_agent' end as bot_hint,
        pages.last_page_at_utc
    from timed
    left join pages
        on timed.site_key = pages.site_key and timed.wid = pages.wid and timed.sid = pages.sid
    left join converted
        on timed.site_key = converted.site_key and timed.wid = converted.wid and timed.sid = converted.sid

)

select * from mapped
