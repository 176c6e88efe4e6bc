-- A lifetime counter does not fall from one snapshot to the next; a fall means a purge or a renamed event. Warns.
{{ config(severity='warn') }}

select *
from (
    select
        site_key,
        event_id,
        snapshot_date,
        total,
        lag(total) over (partition by site_key, event_id order by snapshot_date) as previous_total
    from {{ ref('stg_kissmetrics__events') }}
    where {{ in_window('partition_date', 1) }}
) as snapshots
where total < previous_total
