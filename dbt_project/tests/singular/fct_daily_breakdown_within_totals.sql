-- Of the session vendors no value has more people or sessions than the date, and a dimension's sessions never add up to more than the date's.
with totals as (

    select vendor, site_key, stat_date, visitors, sessions
    from {{ ref('fct_daily_traffic') }}
    where basis = 'native' and sessions is not null and {{ in_window('stat_date') }}

),

dimensions as (

    select vendor, site_key, stat_date, dimension, max(visitors) as most_visitors, sum(sessions) as session_sum
    from {{ ref('fct_daily_breakdown') }}
    where source = 'derived' and {{ in_window('stat_date') }}
    group by vendor, site_key, stat_date, dimension

)

select *
from dimensions
inner join totals using (vendor, site_key, stat_date)
where
    dimensions.session_sum > totals.sessions
    or dimensions.most_visitors > totals.visitors
