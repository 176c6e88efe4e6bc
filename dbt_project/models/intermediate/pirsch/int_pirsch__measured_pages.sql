with pages as (

    select
        site_key,
        stat_date,
        {{ page_group('path') }} as page_group,
        views,
        coalesce(entries, 0) as landings,
        coalesce(bounces, 0) as singles,
        possibly_truncated
    from {{ ref('stg_pirsch__pages') }}
    where {{ in_window('partition_date') }}

),

totals as (

    select site_key, stat_date, views, bounces
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
        -- A list cut at 100 rows loses pages like its smallest ones.
        count(*) filter (possibly_truncated and views <= 2) as small_pages
    from pages
    group by all

),

completed as (

    select
        grouped.site_key,
        grouped.stat_date,
        grouped.page_group,
        grouped.views + coalesce(
            greatest(0, totals.views - sum(grouped.views) over (partition by grouped.site_key, grouped.stat_date))
            * grouped.small_pages
            / nullif(sum(grouped.small_pages) over (partition by grouped.site_key, grouped.stat_date), 0),
            0
        ) as views,
        grouped.landings,
        grouped.singles
    from grouped
    left join totals on grouped.site_key = totals.site_key and grouped.stat_date = totals.stat_date

)

select * from completed
