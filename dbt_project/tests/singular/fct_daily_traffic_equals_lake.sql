-- Vertical integrity: visitors, sessions, views and one-page sessions of the session vendors, date by date, are what the lake holds.
with lake as (

    select
        vendor,
        site_key,
        session_date_local as stat_date,
        nullif(count(distinct visitor), 0) as visitors,
        count(*) as sessions,
        sum(page_count) as views,
        case when count(page_count) > 0 then count(*) filter (page_count = 1) end as bounces
    from {{ newest_lake_sessions() }}
    group by vendor, site_key, session_date_local

),

published as (

    select vendor, site_key, stat_date, visitors, sessions, views, bounces
    from {{ ref('fct_daily_traffic') }}
    where
        basis = 'native'
        and sessions is not null
        and vendor in (select vendor from {{ ref('dim_vendor') }} where has_session_rows)
        and {{ in_window('stat_date') }}

)

select *
from published
left join lake using (vendor, site_key, stat_date)
where
    published.sessions <> coalesce(lake.sessions, 0)
    or (
        published.sessions > 0
        and (
            published.visitors is distinct from lake.visitors
            or published.views is distinct from lake.views
            or published.bounces is distinct from lake.bounces
        )
    )
