{{ config(materialized='table') }}

-- Dates on which a vendor's recordings stop for good while the anchor's sessions go on: a plan's cap.
with recordings as (

    select * from {{ ref('int_recording_days') }}
    where stat_date > (select max(stat_date) from {{ ref('int_recording_days') }}) - {{ var('reconciliation_days') }} - 1

),

hours as (

    select site_key, hour_start_utc, sum(sessions) as sessions
    from {{ ref('int_measured_hours') }}
    where vendor = '{{ var("reconciliation_anchor") }}'
    group by all

),

complete as (

    select ours.vendor, ours.site_key, ours.stat_date
    from {{ ref('fct_daily_traffic') }} as ours
    inner join {{ ref('fct_daily_traffic') }} as anchor
        on ours.site_key = anchor.site_key and ours.stat_date = anchor.stat_date and ours.basis = anchor.basis
    where
        ours.basis = 'native'
        and ours.is_complete_day
        and anchor.vendor = '{{ var("reconciliation_anchor") }}'
        and anchor.is_complete_day

),

-- A date has 23 to 25 hours; the anchor's sessions of an hour are taken as evenly spread within it.
measured as (

    select
        recordings.vendor,
        recordings.site_key,
        recordings.stat_date,
        any_value(recordings.recordings) as recordings,
        any_value(recordings.last_started_at_utc) as flat_from_utc,
        any_value(recordings.day_ends_at_utc) as flat_until_utc,
        sum(hours.sessions) as anchor_sessions,
        sum(hours.sessions * {{ share_of_hour(
            'hours.hour_start_utc', 'recordings.last_started_at_utc', 'recordings.day_ends_at_utc'
        ) }}) as anchor_sessions_after
    from recordings
    inner join complete
        on
            recordings.vendor = complete.vendor
            and recordings.site_key = complete.site_key
            and recordings.stat_date = complete.stat_date
    inner join hours
        on
            recordings.site_key = hours.site_key
            and hours.hour_start_utc >= recordings.day_starts_at_utc
            and hours.hour_start_utc < recordings.day_ends_at_utc
    group by recordings.vendor, recordings.site_key, recordings.stat_date

),

-- At the rate the vendor recorded until then, how many more would have come?
expected as (

    select
        *,
        anchor_sessions_after * recordings / nullif(anchor_sessions - anchor_sessions_after, 0) as expected_after
    from measured

),

caps as (

    select vendor, site_key, recordings as cap, count(*) as dates
    from expected
    where expected_after >= {{ var('flat_least_sessions') }}
    group by vendor, site_key, recordings
    having count(*) >= 2

),

-- A plan begins anew at midnight. A vendor that is as silent on the whole next date has lost its tag.
silent as (

    select
        complete.vendor,
        complete.site_key,
        complete.stat_date - 1 as stat_date
    from complete
    anti join recordings using (vendor, site_key, stat_date)

),

-- A number of recordings that ended several dates early ends the other dates that reach it, however late.
judged as (

    select
        expected.*,
        caps.cap is not null as is_known_cap
    from expected
    anti join silent
        on expected.vendor = silent.vendor and expected.site_key = silent.site_key and expected.stat_date = silent.stat_date
    left join caps
        on expected.vendor = caps.vendor and expected.site_key = caps.site_key and expected.recordings = caps.cap

),

final as (

    select
        vendor,
        site_key,
        stat_date,
        recordings,
        flat_from_utc,
        flat_until_utc,
        expected_after,
        is_known_cap
    from judged
    where is_known_cap or expected_after >= {{ var('flat_least_sessions') }}

)

select * from final
