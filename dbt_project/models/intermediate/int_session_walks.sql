{{ config(materialized='table') }}

{#- One row a common session: what the anchor's rules make of the vendor's sessions. Holds the window of the last build, one day wider. -#}

with sessions as (

    select
        session_key,
        vendor,
        site_key,
        coalesce(vendor_visitor_id, vendor_session_id) as visitor,
        session_date_local,
        started_at_utc,
        least(
            coalesce(
                last_page_at_utc,
                ended_at_utc,
                started_at_utc + to_microseconds(cast(coalesce(duration_seconds, 0) * 1e6 as bigint))
            ),
            started_at_utc + interval {{ var('common_session_cap_hours') }} hour
        ) as last_known_at_utc
    from {{ ref('int_sessions_unioned') }}
    where {{ in_window('session_date_local', 3, 1) }}

),

with_previous as (

    select
        *,
        max(last_known_at_utc) over (
            partition by vendor, site_key, visitor
            order by started_at_utc, session_key
            rows between unbounded preceding and 1 preceding
        ) as previous_at_utc
    from sessions

),

with_island as (

    select
        *,
        count(*) filter (
            previous_at_utc is null
            or started_at_utc > previous_at_utc + interval {{ var('common_idle_minutes') }} minute
        ) over (
            partition by vendor, site_key, visitor
            order by started_at_utc, session_key
            rows between unbounded preceding and current row
        ) as island
    from with_previous

),

with_stretch as (

    select *, {{ common_stretch(['vendor', 'site_key', 'visitor', 'island']) }} as stretch
    from with_island

),

told as (

    select
        with_stretch.vendor,
        with_stretch.site_key,
        with_stretch.visitor,
        with_stretch.island,
        with_stretch.stretch,
        enriched.session_key,
        enriched.started_at_utc,
        enriched.country_code,
        coalesce(enriched.page_count, 0) as page_count,
        flags.is_suspected_bot,
        unioned.page_urls[1:coalesce(enriched.page_count, 0)] as page_urls
    from {{ ref('int_sessions_enriched') }} as enriched
    inner join with_stretch on enriched.session_key = with_stretch.session_key
    inner join {{ ref('int_sessions_bot_flagged') }} as flags on enriched.session_key = flags.session_key
    inner join {{ ref('int_sessions_unioned') }} as unioned on enriched.session_key = unioned.session_key

),

sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

walks as (

    select
        vendor,
        site_key,
        visitor,
        min_by(session_key, (started_at_utc, session_key)) as walk_key,
        min(started_at_utc) as started_at_utc,
        min_by(country_code, (started_at_utc, session_key)) as country_code,
        bool_or(is_suspected_bot) as is_suspected_bot,
        sum(page_count) as page_count,
        flatten(list(page_urls order by started_at_utc, session_key)) as page_urls
    from told
    group by vendor, site_key, visitor, island, stretch

),

dated as (

    select
        walks.*,
        {{ local_date('walks.started_at_utc', anchor_timezone('walks.site_key', 'zones.timezone', 'sites.timezone')) }} as stat_date,
        -- The same URL as just before is a reload, and a reload is no view by the anchor's rules.
        page_count - len(list_filter(
            list_zip(page_urls[:-2], page_urls[2:]), lambda pair: pair[1] = pair[2]
        )) as view_count,
        list_transform(page_urls, lambda url: {{ url_page_group('url') }}) as page_groups
    from walks
    inner join sites on walks.site_key = sites.site_key
    left join {{ ref('int_anchor_zones') }} as zones
        on walks.site_key = zones.site_key and {{ local_date('walks.started_at_utc', 'sites.timezone') }} = zones.stat_date

),

final as (

    select * exclude (page_urls) from dated

)

select * from final
