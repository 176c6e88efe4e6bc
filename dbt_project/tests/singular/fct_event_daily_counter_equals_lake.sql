-- Vertical integrity: a bounded growth is the difference of two totals of the lake, and that of the session event is the date's sessions.
with bounded as (

    select site_key, stat_date, event_id, lower(event_name) as event_name, occurrences
    from {{ ref('fct_event_daily') }}
    where vendor = 'kissmetrics' and is_delta_bounded and occurrences is not null and {{ in_window('stat_date') }}

),

totals as (

    select site_key, event_id, snapshot_date, total
    from {{ ref('stg_kissmetrics__events') }}
    where {{ in_window('partition_date', 3) }}

),

differences as (

    select site_key, event_id, later.total - coalesce(earlier.total, 0) as growth, later.snapshot_date
    from totals as later
    left join totals as earlier using (site_key, event_id)
    where earlier.snapshot_date is null or earlier.snapshot_date < later.snapshot_date
    union all
    -- An event that began between the two readings.
    select site_key, event_id, total, snapshot_date from totals

),

sessions as (

    select site_key, stat_date, sessions
    from {{ ref('fct_daily_traffic') }}
    where vendor = 'kissmetrics' and basis = 'native' and sessions is not null

)

select bounded.*
from bounded
left join sessions using (site_key, stat_date)
where
    not exists (
        select 1
        from differences
        where
            differences.site_key = bounded.site_key
            and differences.event_id = bounded.event_id
            and differences.growth = bounded.occurrences
            and abs(differences.snapshot_date - bounded.stat_date) <= 2
    )
    or (bounded.event_name = '{{ var("kissmetrics_session_event") }}' and bounded.occurrences <> sessions.sessions)
