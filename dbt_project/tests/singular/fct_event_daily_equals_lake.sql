-- Vertical integrity: reported figures are the vendor's own, derived ones the rows of fct_events, event by event and date by date.
with expected as (

    select 'smartlook' as vendor, site_key, stat_date, event_id, occurrence_count as occurrences, unique_visitors
    from {{ ref('stg_smartlook__event_daily') }}
    where {{ in_window('partition_date') }}
    union all
    select 'pirsch', site_key, stat_date, name, coalesce(event_count, views), visitors
    from {{ ref('stg_pirsch__events') }}
    where {{ in_window('partition_date') }}
    union all
    select vendor, site_key, session_date_local, event_name, count(*), nullif(count(distinct vendor_visitor_id), 0)
    from {{ ref('fct_events') }}
    where {{ in_window('session_date_local') }} and vendor not in ('smartlook', 'pirsch')
    group by vendor, site_key, session_date_local, event_name

),

published as (

    select vendor, site_key, stat_date, event_id, occurrences, unique_visitors
    from {{ ref('fct_event_daily') }}
    where source in ('reported', 'derived') and {{ in_window('stat_date') }}

)

(select * from published except select * from expected)
union all
(select * from expected except select * from published)
