-- Vertical integrity: per session vendor, site and date, views, entries and exits of the paths are those of the page views.
with views as (

    select
        vendor,
        site_key,
        session_date_local as stat_date,
        count(*) as view_count,
        count(*) filter (is_entry) as entry_count,
        count(*) filter (is_exit) as exit_count,
        count(distinct path) as path_count
    from {{ ref('fct_page_views') }}
    where path is not null and {{ in_window('session_date_local') }}
    group by vendor, site_key, session_date_local

),

paths as (

    select
        vendor,
        site_key,
        stat_date,
        cast(sum(views) as bigint) as view_count,
        cast(sum(entries) as bigint) as entry_count,
        cast(sum(exits) as bigint) as exit_count,
        count(*) as path_count
    from {{ ref('fct_page_daily') }}
    where source = 'derived' and {{ in_window('stat_date') }}
    group by vendor, site_key, stat_date

)

(select * from paths except select * from views)
union all
(select * from views except select * from paths)
