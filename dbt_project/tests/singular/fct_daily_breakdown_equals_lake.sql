-- Vertical integrity: Pirsch's values come through unchanged; of the session vendors every session is in exactly one value of a full dimension.
with reported as (

    select site_key, stat_date, dimension, parent_value, value, visitors, sessions, bounces, relative_visitors as share
    from {{ ref('stg_pirsch__breakdowns') }}
    where {{ in_window('partition_date') }}

),

published as (

    select site_key, stat_date, dimension, parent_value, value, visitors, sessions, bounces, share
    from {{ ref('fct_daily_breakdown') }}
    where vendor = 'pirsch' and not is_other and {{ in_window('stat_date') }}

),

lake as (

    select vendor, site_key, session_date_local as stat_date, count(*) as session_count
    from {{ newest_lake_sessions() }}
    where {{ in_window('session_date_local') }}
    group by vendor, site_key, session_date_local

),

full_dimensions as (

    select vendor, site_key, stat_date, dimension, sum(sessions) as session_count
    from {{ ref('fct_daily_breakdown') }}
    where
        source = 'derived'
        and dimension in ('country', 'platform', 'device', 'os', 'browser', 'referrer')
        and {{ in_window('stat_date') }}
    group by vendor, site_key, stat_date, dimension

)

select 'reported' as side, site_key, stat_date, dimension, value
from ((select * from reported except select * from published) union all (select * from published except select * from reported))
union all
select 'derived', site_key, stat_date, dimension, vendor
from lake
left join full_dimensions using (vendor, site_key, stat_date)
where lake.session_count is distinct from full_dimensions.session_count
