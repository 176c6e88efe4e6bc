with deltas as (

    select
        *,
        greatest(cast(round(hours_between / 24) as bigint), 1) as date_count
    from {{ ref('int_kissmetrics__counter_deltas') }}

),

-- The interval in parts of about a day, each on the date that holds its middle. Shares are whole and add up to the growth.
split as (

    select
        deltas.*,
        case
            when date_count <= {{ var('counter_split_dates') }}
                then (growth * part) // date_count - (growth * (part - 1)) // date_count
        end as share,
        coalesce(reason_null, if(date_count > {{ var('counter_split_dates') }}, 'snapshots_too_far_apart', null)) as share_reason,
        case
            when date_count = 1 and middle_date is not null then middle_date
            else greatest(
                least(
                    {{ local_date(
                        'previous_read_at '
                        ~ '+ to_microseconds(cast(epoch_us(read_at - previous_read_at) * (part - 0.5) / date_count as bigint) - 1)',
                        'timezone'
                    ) }},
                    snapshot_date
                ),
                previous_snapshot_date
            )
        end as stat_date
    from deltas
    cross join unnest(generate_series(1, deltas.date_count)) as parts (part)

),

mapped as (

    select
        'kissmetrics' as vendor,
        site_key,
        stat_date,
        event_id,
        cast(null as varchar) as event_category,
        max_by(event_name, read_at) as event_name,
        case when count(*) = count(share) then cast(sum(share) as bigint) end as occurrences,
        cast(null as bigint) as unique_visitors,
        max(share_reason) as occurrences_reason,
        'not_offered' as visitors_reason,
        case when max(date_count) > 1 then 'interpolated' else 'counter_growth' end as source,
        'snapshot' as day_basis,
        false as is_list_cut,
        count(*) = 1 and bool_and(is_about_a_day) as is_delta_bounded
    from split
    group by site_key, stat_date, event_id

)

select * from mapped
where {{ in_window('stat_date', var('counter_known_dates') - 1) }}
