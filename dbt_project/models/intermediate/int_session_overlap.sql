{{ config(materialized='table') }}

{%- set left_vendor, right_vendor = var('overlap_vendors') %}
{%- set traits = ['site_key', 'device_kind', 'country_code', 'landing_path'] %}

with sessions as (

    select
        vendor,
        session_key,
        session_date_local,
        started_at_utc,
        site_key,
        country_code,
        landing_path,
        browser_family,
        -- Not every vendor tells a tablet from a phone.
        case device_class when 'tablet' then 'phone' else device_class end as device_kind,
        cast(floor(epoch(started_at_utc) / {{ var('overlap_seconds') }}) as bigint) as time_slot
    from {{ ref('int_sessions_enriched') }}
    where vendor in ('{{ left_vendor }}', '{{ right_vendor }}') and landing_path is not null

),

left_sessions as (

    select * from sessions
    where vendor = '{{ left_vendor }}'

),

-- Each session stands in its own slot and both neighbours, so that equality finds all starts that can be near enough.
right_slots as (

    select *, time_slot + unnest([-1, 0, 1]) as near_slot
    from sessions
    where vendor = '{{ right_vendor }}'

),

candidates as (

    select
        left_sessions.site_key,
        left_sessions.session_date_local,
        left_sessions.session_key as left_session_key,
        right_slots.session_key as right_session_key,
        abs(epoch_ms(left_sessions.started_at_utc) - epoch_ms(right_slots.started_at_utc)) / 1000 as start_distance_seconds
    from left_sessions
    inner join right_slots
        on
            left_sessions.time_slot = right_slots.near_slot
            {%- for trait in traits %}
            and left_sessions.{{ trait }} = right_slots.{{ trait }}
            {%- endfor %}
    where
        -- `other` is what a vendor's list of browsers has no word for.
        (
            left_sessions.browser_family = right_slots.browser_family
            or 'other' in (left_sessions.browser_family, right_slots.browser_family)
        )
        and abs(epoch_ms(left_sessions.started_at_utc) - epoch_ms(right_slots.started_at_utc))
        <= {{ var('overlap_seconds') }} * 1000

),

ranked as (

    select
        *,
        row_number() over (
            partition by left_session_key order by start_distance_seconds, right_session_key
        ) as left_rank,
        row_number() over (
            partition by right_session_key order by start_distance_seconds, left_session_key
        ) as right_rank,
        count(*) over (partition by left_session_key) as left_match_count,
        count(*) over (partition by right_session_key) as right_match_count
    from candidates

),

paired as (

    select
        site_key,
        session_date_local,
        '{{ left_vendor }}' as left_vendor,
        left_session_key,
        '{{ right_vendor }}' as right_vendor,
        right_session_key,
        start_distance_seconds,
        greatest(left_match_count, right_match_count) as match_count
    from ranked
    where left_rank = 1 and right_rank = 1 and {{ in_window('session_date_local') }}

)

select * from paired
