{{ config(materialized='table') }}

{#- A row told by a counter lies between its two snapshots: those of the widest pair that touches the rows to be replaced. -#}
{%- set margin_dates = 2 * var('counter_known_dates') -%}

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

neighbours as (

    select
        site_key,
        snapshot_date,
        read_at,
        lag(snapshot_date) over by_date as previous_snapshot_date,
        lag(read_at) over by_date as previous_read_at
    from readings
    window by_date as (partition by site_key order by snapshot_date)

),

intervals as (

    select
        *,
        snapshot_date - previous_snapshot_date as dates_between,
        epoch(read_at - previous_read_at) / 3600 as hours_between
    from neighbours
    where read_at > previous_read_at and snapshot_date - previous_snapshot_date <= {{ var('counter_known_dates') }}

),

-- Growth of each counter between two neighbouring readings. A counter that was not there began at zero, if it says so itself.
grown as (

    select
        intervals.*,
        later.event_id,
        coalesce(later.name, later.display_name) as event_name,
        later.total - case
            when earlier.event_id is not null then earlier.total
            when later.first_sent_at >= intervals.previous_read_at then 0
        end as difference,
        earlier.event_id is null as is_new
    from intervals
    inner join counters as later
        on intervals.site_key = later.site_key and intervals.snapshot_date = later.snapshot_date
    left join counters as earlier
        on
            intervals.site_key = earlier.site_key
            and intervals.previous_snapshot_date = earlier.snapshot_date
            and later.event_id = earlier.event_id

),

final as (

    select
        grown.site_key,
        sites.timezone,
        grown.previous_snapshot_date,
        grown.snapshot_date,
        grown.previous_read_at,
        grown.read_at,
        grown.hours_between,
        grown.hours_between between 18 and 30 and grown.dates_between <= 2 as is_about_a_day,
        -- At most one date from either snapshot, so that a run's own window holds every date its snapshots speak of.
        case
            when grown.dates_between <= 2
                then greatest(
                    least(
                        {{ local_date(
                            'grown.previous_read_at + (grown.read_at - grown.previous_read_at) / 2 - interval 1 microsecond',
                            'sites.timezone'
                        ) }},
                        grown.previous_snapshot_date + 1
                    ),
                    grown.snapshot_date - 1
                )
        end as middle_date,
        grown.event_id,
        grown.event_name,
        case when grown.difference >= 0 then grown.difference end as growth,
        case
            when grown.difference is null and grown.is_new then 'not_in_previous_snapshot'
            when grown.difference is null then 'not_reported'
            when grown.difference < 0 then 'counter_fell'
        end as reason_null
    from grown
    inner join sites on grown.site_key = sites.site_key

)

select * from final
