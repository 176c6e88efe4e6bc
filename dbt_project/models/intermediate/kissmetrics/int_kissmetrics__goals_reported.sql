-- The events that somebody named a goal in the seed; every event has a lifetime counter.
with goals as (

    select distinct vendor_goal
    from {{ ref('vendor_goals') }}
    where vendor = 'kissmetrics'

),

deltas as (

    select
        deltas.site_key,
        deltas.middle_date as stat_date,
        goals.vendor_goal,
        deltas.snapshot_date,
        deltas.hours_between,
        deltas.is_about_a_day,
        deltas.growth,
        deltas.reason_null
    from {{ ref('int_kissmetrics__counter_deltas') }} as deltas
    inner join goals on lower(deltas.event_name) = goals.vendor_goal
    where deltas.middle_date is not null and {{ in_window('deltas.middle_date') }}

),

judged as (

    select
        'kissmetrics' as vendor,
        site_key,
        stat_date,
        vendor_goal,
        case when is_about_a_day then growth end as conversions,
        cast(null as bigint) as converting_visitors,
        cast(null as bigint) as views,
        cast(null as double) as conversion_rate,
        cast(null as varchar) as cr_basis,
        case when not is_about_a_day then 'snapshots_not_one_day_apart' else reason_null end as reason_null
    from deltas
    qualify row_number() over (
        partition by site_key, vendor_goal, stat_date order by abs(hours_between - 24), snapshot_date, growth desc nulls last
    ) = 1

)

select * from judged
