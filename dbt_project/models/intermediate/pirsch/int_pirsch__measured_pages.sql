with pages as (

    select
        site_key,
        stat_date,
        {{ page_group('path') }} as page_group,
        views,
        coalesce(entries, 0) as landings,
        coalesce(bounces, 0) as singles,
        -- A list cut at 100 rows loses pages like the last ones it has.
        possibly_truncated
        and row_number() over (partition by site_key, stat_date order by visitors, views, path) <= 20 as is_last
    from {{ ref('stg_pirsch__pages') }}
    where views is not null and {{ in_window('partition_date') }}

),

totals as (

    select site_key, stat_date, views
    from {{ ref('stg_pirsch__daily_stats') }}
    where {{ in_window('partition_date') }}

),

grouped as (

    select
        site_key,
        stat_date,
        page_group,
        sum(views) as views,
        sum(landings) as landings,
        sum(singles) as singles,
        coalesce(sum(views) filter (is_last), 0) as last_views
    from pages
    group by all

),

shared_out as (

    select
        grouped.*,
        coalesce(
            greatest(0, totals.views - sum(grouped.views) over (partition by grouped.site_key, grouped.stat_date))
            * grouped.last_views
            / nullif(sum(grouped.last_views) over (partition by grouped.site_key, grouped.stat_date), 0),
            0
        ) as unlisted_views
    from grouped
    left join totals on grouped.site_key = totals.site_key and grouped.stat_date = totals.stat_date

),

completed as (

    select
        site_key,
        stat_date,
        page_group,
        views + unlisted_views as views,
        landings,
        -- Unlisted pages are the only view of a session as often as listed ones; a session of one view began there.
        least(singles * (1 + unlisted_views / nullif(views, 0)), greatest(landings, singles)) as singles
    from shared_out

)

select * from completed
