{%- set margin_dates = var('counter_known_dates') + 2 -%}

with sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

counters as (

    select * from {{ ref('stg_kissmetrics__events') }}
    where {{ in_window('partition_date', margin_dates) }}

),

readings as (

    select site_key, snapshot_date, max(landed_at) as read_at
    from counters
    group by site_key, snapshot_date

),

intervals as (

    select
        site_key,
        snapshot_date,
        read_at,
        lag(snapshot_date) over by_date as previous_snapshot_date,
        lag(read_at) over by_date as previous_read_at,
        epoch(read_at - lag(read_at) over by_date) / 3600 as hours_between
    from readings
    window by_date as (partition by site_key order by snapshot_date)

),

-- Growth of each counter between two neighbouring readings. A counter that was not there began at zero, if it says so itself.
grown as (

    select
        intervals.site_key,
        intervals.previous_read_at,
        intervals.read_at,
        intervals.hours_between,
        greatest(cast(round(intervals.hours_between / 24) as bigint), 1) as date_count,
        later.event_id,
        coalesce(later.name, later.display_name) as event_name,
        later.total - case
            when earlier.event_id is not null then earlier.total
            when later.first_sent_at >= intervals.previous_read_at then 0
        end as growth,
        earlier.event_id is null as is_new
    from intervals
    inner join counters as later
        on intervals.site_key = later.site_key and intervals.snapshot_date = later.snapshot_date
    left join counters as earlier
        on
            intervals.site_key = earlier.site_key
            and intervals.previous_snapshot_date = earlier.snapshot_date
            and later.event_id = earlier.event_id
    where intervals.hours_between > 0 and intervals.hours_between <= 24 * {{ var('counter_known_dates') }}

),

-- The interval in parts of about a day, each on the date that holds its middle. Shares are whole and add up to the growth.
split as (

    select
        grown.*,
        part,
        case
            when growth < 0 or date_count > {{ var('counter_split_dates') }} then null
            else (growth * part) // date_count - (growth * (part - 1)) // date_count
        end as share,
        case
            when growth is null and is_new then 'not_in_previous_snapshot'
            when growth is null then 'not_reported'
            when growth < 0 then 'counter_fell'
            when date_count > {{ var('counter_split_dates') }} then 'snapshots_too_far_apart'
        end as share_reason,
        previous_read_at + to_microseconds(cast(epoch_us(read_at - previous_read_at) * (part - 0.5) / date_count as bigint) - 1)
            as middle_at
    from grown
    cross join unnest(generate_series(1, grown.date_count)) as parts (part)

),

mapped as (

    select
        'kissmetrics' as vendor,
        split.site_key,
        {{ local_date('split.middle_at', 'sites.timezone') }} as stat_date,
        split.event_id,
        cast(null as varchar) as event_category,
        max_by(split.event_name, split.read_at) as event_name,
        case when count(*) = count(split.share) then cast(sum(split.share) as bigint) end as occurrences,
        cast(null as bigint) as unique_visitors,
        max(split.share_reason) as occurrences_reason,
        'not_offered' as visitors_reason,
        case when max(split.date_count) > 1 then 'interpolated' else 'counter_growth' end as source,
        'snapshot' as day_basis,
        false as is_list_cut,
        count(*) = 1 and min(split.hours_between) >= 18 and max(split.hours_between) <= 30 as is_delta_bounded
    from split
    inner join sites on split.site_key = sites.site_key
    group by all

)

select * from mapped
where {{ in_window('stat_date') }}
