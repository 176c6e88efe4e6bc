with deltas as (

    select * from {{ ref('int_kissmetrics__counter_deltas') }}
    where middle_date is not null and {{ in_window('middle_date') }}

),

pairs as (

    select
        site_key,
        middle_date as stat_date,
        snapshot_date,
        any_value(hours_between) as hours_between,
        any_value(is_about_a_day) as is_about_a_day,
        max(growth) filter (lower(event_name) = '{{ var("kissmetrics_session_event") }}') as growth,
        max(reason_null) filter (lower(event_name) = '{{ var("kissmetrics_session_event") }}') as reason_null
    from deltas
    group by site_key, middle_date, snapshot_date

),

judged as (

    select
        site_key,
        stat_date,
        snapshot_date,
        hours_between,
        case
            when growth is null and reason_null is null then 'session_event_missing'
            when not is_about_a_day then 'snapshots_not_one_day_apart'
            when growth is null then reason_null
        end as reason_null,
        case when is_about_a_day then growth end as sessions
    from pairs
    qualify row_number() over (partition by site_key, stat_date order by abs(hours_between - 24), snapshot_date) = 1

)

select * from judged
