{{ config(materialized='table') }}

with sessions as (

    select *
    from {{ ref('int_sessions_unioned') }}
    where {{ in_window('session_date_local', 1) }}

),

-- Common sessions: one visitor's sessions at most 30 minutes apart are one, cut after 24 hours (macro common_stretch). Worked out on the
-- few columns it takes, since sorting whole rows, lists of pages included, is what would not fit in memory.
walked as (

    select
        session_key,
        vendor,
        site_key,
        coalesce(vendor_visitor_id, vendor_session_id) as walker,
        session_date_local,
        started_at_utc,
        vendor_session_id,
        least(
            coalesce(ended_at_utc, started_at_utc + to_microseconds(cast(coalesce(duration_seconds, 0) * 1e6 as bigint))),
            started_at_utc + interval {{ var('common_session_cap_hours') }} hour
        ) as known_end_utc
    from {{ ref('int_sessions_unioned') }}
    where {{ in_window('session_date_local', 3, 1) }}

),

with_previous_end as (

    select
        *,
        max(known_end_utc) over (
            partition by vendor, site_key, walker
            order by started_at_utc, vendor_session_id
            rows between unbounded preceding and 1 preceding
        ) as previous_end_utc
    from walked

),

with_island as (

    select
        *,
        count(*) filter (
            previous_end_utc is null
            or started_at_utc > previous_end_utc + interval {{ var('common_idle_minutes') }} minute
        ) over (
            partition by vendor, site_key, walker
            order by started_at_utc, vendor_session_id
            rows between unbounded preceding and current row
        ) as island
    from with_previous_end

),

with_stretch as (

    select *, {{ common_stretch(['vendor', 'site_key', 'walker', 'island']) }} as stretch
    from with_island

),

common_keys as (

    select
        session_key,
        first_value(session_key) over (
            partition by vendor, site_key, walker, island, stretch
            order by started_at_utc, vendor_session_id
        ) as common_session_key
    from with_stretch

),

with_common_key as (

    select sessions.*, common_keys.common_session_key
    from sessions
    inner join common_keys on sessions.session_key = common_keys.session_key

),

cleaned as (

    select
        *,
        list_distinct(list_transform(page_urls, lambda url: {{ page_identity('url') }})) as distinct_pages,
        {{ clean_url('landing_url') }} as landing_url_clean,
        {{ clean_url('exit_url') }} as exit_url_clean,
        {{ clean_url('referrer_url') }} as referrer_url_clean,
        {{ url_host('referrer_url') }} as referrer_host,
        {% for word in ['source', 'medium', 'campaign', 'content', 'term'] %}
        {{ query_param('landing_url', 'utm_' ~ word) }} as utm_{{ word }}_raw,
        {% endfor %}
    from with_common_key

),

enriched as (

    select
        cleaned.session_key,
        cleaned.common_session_key,
        cleaned.vendor,
        cleaned.site_key,
        cleaned.session_date_local,
        cleaned.partition_date,
        cleaned.vendor_session_id,
        cleaned.vendor_visitor_id,
        cleaned.started_at_utc,
        cleaned.ended_at_utc,
        cleaned.duration_seconds,
        cleaned.duration_source,
        cleaned.page_count,
        cleaned.distinct_pages,
        case when len(cleaned.distinct_pages) > 0 then len(cleaned.distinct_pages) end as distinct_page_count,
        cleaned.has_conversion,
        cleaned.is_new_visitor,
        cleaned.landing_url_clean as landing_url,
        {{ url_path('cleaned.landing_url_clean') }} as landing_path,
        cleaned.exit_url_clean as exit_url,
        cleaned.referrer_url_clean as referrer_url,
        cleaned.referrer_host,
        cleaned.referrer_code,
        {% for word in ['source', 'medium', 'campaign', 'content', 'term'] %}
        cleaned.utm_{{ word }}_raw,
        lower(cleaned.utm_{{ word }}_raw) as utm_{{ word }}_norm,
        {% endfor %}
        {{ channel_group(
            'lower(cleaned.utm_source_raw)', 'lower(cleaned.utm_medium_raw)', 'cleaned.referrer_host',
            'cleaned.own_host', 'cleaned.landing_url', 'cleaned.referrer_code'
        ) }} as channel,
        coalesce(countries.country_code, 'ZZ') as country_code,
        cleaned.region,
        coalesce(devices.device_class, 'unknown') as device_class,
        coalesce(browsers.browser_family, 'other') as browser_family,
        coalesce(systems.os_family, 'other') as os_family,
        cleaned.screen_width_px,
        cleaned.screen_height_px,
        cleaned.viewport_width_px,
        cleaned.viewport_height_px,
        cleaned.is_starred,
        cleaned.note_count,
        cleaned.bot_hint
    from cleaned
    left join {{ ref('vocab_country') }} as countries on lower(trim(cleaned.country_label)) = countries.vendor_label
    left join {{ ref('vocab_device') }} as devices on lower(trim(cleaned.device_label)) = devices.vendor_label
    left join {{ ref('vocab_browser') }} as browsers on lower(trim(cleaned.browser_label)) = browsers.vendor_label
    left join {{ ref('vocab_os') }} as systems on lower(trim(cleaned.os_label)) = systems.vendor_label

)

select * from enriched
