-- Vertical integrity: native sessions of the counter are what it grew by between the lake's two readings around the date.
with readings as (

    select
        site_key,
        snapshot_date,
        max(total) filter (lower(coalesce(name, display_name)) = '{{ var("kissmetrics_session_event") }}') as total,
        max(landed_at) as read_at
    from {{ ref('stg_kissmetrics__events') }}
    where {{ in_window('partition_date', 3) }}
    group by site_key, snapshot_date

),

published as (

    select site_key, stat_date, sessions
    from {{ ref('fct_daily_traffic') }}
    where vendor = 'kissmetrics' and basis = 'native' and sessions is not null and {{ in_window('stat_date') }}

)

select published.site_key, published.stat_date, published.sessions
from published
inner join {{ ref('dim_site') }} as sites on published.site_key = sites.site_key
where not exists (
    select 1
    from readings as earlier
    inner join readings as later on earlier.site_key = later.site_key and earlier.snapshot_date < later.snapshot_date
    where
        later.site_key = published.site_key
        and later.total - earlier.total = published.sessions
        and epoch(later.read_at - earlier.read_at) between 18 * 3600 and 30 * 3600
        and abs(epoch(
            earlier.read_at + (later.read_at - earlier.read_at) / 2
            - timezone('UTC', timezone(sites.timezone, cast(published.stat_date as timestamp) + interval 12 hour))
        )) <= 13 * 3600
)
