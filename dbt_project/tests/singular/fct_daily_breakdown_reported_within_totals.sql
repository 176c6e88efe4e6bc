-- No value of a list has more people than the date, nor have values that exclude each other. Warns: lists and totals are separate answers.
{{ config(severity='warn') }}

with totals as (

    select vendor, site_key, stat_date, visitors, sessions
    from {{ ref('fct_daily_traffic') }}
    where basis = 'native' and sessions is not null and {{ in_window('stat_date') }}

),

dimensions as (

    select
        vendor,
        site_key,
        stat_date,
        dimension,
        max(visitors) as most_visitors,
        sum(sessions) as session_sum,
        case when dimension in ('os', 'os_version', 'browser', 'browser_version', 'country', 'city') then sum(visitors) end as visitor_sum
    from {{ ref('fct_daily_breakdown') }}
    where source = 'reported' and {{ in_window('stat_date') }}
    group by vendor, site_key, stat_date, dimension

)

select *
from dimensions
inner join totals using (vendor, site_key, stat_date)
where
    dimensions.session_sum > totals.sessions
    or dimensions.visitor_sum > totals.visitors
    -- Engines before 4.3.2 count sessions where platform says visitors.
    or dimensions.most_visitors > if(dimensions.dimension = 'platform', greatest(totals.visitors, totals.sessions), totals.visitors)
