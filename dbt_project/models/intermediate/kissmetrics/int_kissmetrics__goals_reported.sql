with sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

-- The events that somebody named a goal in the seed; every event has a lifetime counter.
goals as (

    select distinct vendor_goal
    from {{ ref('vendor_goals') }}
    where vendor = 'kissmetrics'

),

snapshots as (

    select
        events.site_key,
        lower(coalesce(events.name, events.display_name)) as vendor_goal,
        events.snapshot_date,
        max(events.total) as conversions_ever,
        max(events.landed_at) as read_at
    from {{ ref('stg_kissmetrics__events') }} as events
    inner join goals on lower(coalesce(events.name, events.display_name)) = goals.vendor_goal
    where {{ in_window('events.partition_date', 3) }}
    group by all

),

pairs as (

    select
        *,
        lag(read_at) over by_goal as previous_read_at,
        lag(conversions_ever) over by_goal as previous_conversions_ever
    from snapshots
    window by_goal as (partition by site_key, vendor_goal order by snapshot_date)

),

dated as (

    select
        pairs.site_key,
        pairs.vendor_goal,
        -- As with sessions: the growth belongs to the local date that holds the middle between the two readings.
        {{ local_date(
            "pairs.previous_read_at + (pairs.read_at - pairs.previous_read_at) / 2 - interval 1 microsecond", 'sites.timezone'
        ) }} as stat_date,
        pairs.snapshot_date,
        epoch(pairs.read_at - pairs.previous_read_at) / 3600 as hours_between,
        pairs.conversions_ever - pairs.previous_conversions_ever as growth
    from pairs
    inner join sites on pairs.site_key = sites.site_key
    where pairs.previous_read_at is not null

),

judged as (

    select
        'kissmetrics' as vendor,
        site_key,
        stat_date,
        vendor_goal,
        case when growth >= 0 and hours_between between 18 and 30 then growth end as conversions,
        cast(null as bigint) as converting_visitors,
        cast(null as bigint) as views,
        cast(null as double) as conversion_rate,
        cast(null as varchar) as cr_basis,
        case
            when hours_between not between 18 and 30 then 'snapshots_not_one_day_apart'
            when growth < 0 then 'counter_fell'
        end as reason_null
    from dated
    qualify row_number() over (
        partition by site_key, vendor_goal, stat_date order by abs(hours_between - 24), snapshot_date
    ) = 1

)

select * from judged
