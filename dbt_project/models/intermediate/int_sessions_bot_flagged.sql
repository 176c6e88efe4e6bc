with sessions as (

    select
        *,
        coalesce(page_count, 1) <= 1 and coalesce(duration_seconds, 0) = 0 as is_nothing
    from {{ ref('int_sessions_enriched') }}

),

-- Machines of one kind within one hour: nearly all of their visits are one page without any length, and there are many.
kinds as (

    select
        vendor,
        site_key,
        date_trunc('hour', started_at_utc) as hour_utc,
        country_code,
        browser_family,
        os_family,
        coalesce(screen_width_px, viewport_width_px, 0) as width_px,
        coalesce(screen_height_px, viewport_height_px, 0) as height_px,
        count(*) as visits,
        count(*) filter (is_nothing) as visits_of_nothing
    from sessions
    group by all

),

bursts as (

    select * from kinds
    where
        visits_of_nothing >= {{ var('bot_burst_visits') }}
        and visits_of_nothing >= {{ var('bot_burst_share') }} * visits

),

judged as (

    select
        sessions.session_key,
        sessions.vendor,
        sessions.site_key,
        sessions.session_date_local,
        coalesce(
            sessions.bot_hint,
            case when sessions.is_nothing and bursts.visits is not null then 'zero_second_burst' end
        ) as bot_reason
    from sessions
    left join bursts
        on
            sessions.vendor = bursts.vendor
            and sessions.site_key = bursts.site_key
            and date_trunc('hour', sessions.started_at_utc) = bursts.hour_utc
            and sessions.country_code = bursts.country_code
            and sessions.browser_family = bursts.browser_family
            and sessions.os_family = bursts.os_family
            and coalesce(sessions.screen_width_px, sessions.viewport_width_px, 0) = bursts.width_px
            and coalesce(sessions.screen_height_px, sessions.viewport_height_px, 0) = bursts.height_px

),

final as (

    select
        session_key,
        vendor,
        site_key,
        session_date_local,
        bot_reason is not null as is_suspected_bot,
        bot_reason
    from judged

)

select * from final
