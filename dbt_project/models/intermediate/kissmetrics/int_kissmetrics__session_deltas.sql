with sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

snapshots as (

    select
        site_key,
        snapshot_date,
        max(total) filter (lower(coalesce(name, display_name)) = '{{ var("kissmetrics_session_event") }}') as sessions_ever,
        max(landed_at) as read_at
    from {{ ref('stg_kissmetrics__events') }}
    where {{ in_window('partition_date', 3) }}
    group by site_key, snapshot_date

),

pairs as (

    select
        site_key,
        snapshot_date,
        read_at,
        sessions_ever,
        lag(read_at) over (partition by site_key order by snapshot_date) as previous_read_at,
        lag(sessions_ever) over (partition by site_key order by snapshot_date) as previous_sessions_ever
    from snapshots

),

dated as (

    select
        pairs.site_key,
        -- The growth belongs to the local date that holds the middle of the time between the two readings.
        {{ local_date(
            "pairs.previous_read_at + (pairs.read_at - pairs.previous_read_at) / 2 - interval 1 microsecond", 'sites.timezone'
        ) }} as stat_date,
        pairs.snapshot_date,
        epoch(pairs.read_at - pairs.previous_read_at) / 3600 as hours_between,
        pairs.sessions_ever - pairs.previous_sessions_ever as growth
    from pairs
    inner join sites on pairs.site_key = sites.site_key
    where pairs.previous_read_at is not null

),

judged as (

    select
        site_key,
        stat_date,
        snapshot_date,
        hours_between,
        case
            when growth is null then 'session_event_missing'
            when hours_between not between 18 and 30 then 'snapshots_not_one_day_apart'
            when growth < 0 then 'counter_fell'
        end as reason_null,
        case when growth >= 0 and hours_between between 18 and 30 then growth end as sessions
    from dated
    qualify row_number() over (partition by site_key, stat_date order by abs(hours_between - 24), snapshot_date) = 1

)

select * from judged
