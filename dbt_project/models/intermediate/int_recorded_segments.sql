{#- Common sessions: the anchor does not cut a visit at 15 minutes either. -#}
with sessions as (

    select
        vendor,
        session_key,
        site_key,
        session_date_local as stat_date,
        case when device_class in ('phone', 'tablet') then 'mobile' else device_class end as device,
        country_code as country,
        channel,
        case when has_conversion then 'yes' else 'no' end as converted
    from {{ without_suspected_bots(ref('int_sessions_enriched')) }}
    where
        vendor in ('{{ var('replay_vendors') | join("', '") }}')
        and session_key = common_session_key
        and {{ in_window('session_date_local') }}

),

-- A visit that both recorded counts once.
either as (

    select sessions.* replace ('any' as vendor)
    from sessions
    anti join {{ ref('int_session_overlap') }} as pairs on sessions.session_key = pairs.right_session_key

),

counted as (

    select
        site_key,
        stat_date,
        vendor,
        segment_dimension,
        segment_value,
        count(*) as sessions
    from (
        select *, 'all' as "all" from sessions
        union all by name
        select *, 'all' as "all" from either
    )
    unpivot (segment_value for segment_dimension in ("all", device, country, channel, converted))
    group by all

)

select * from counted
