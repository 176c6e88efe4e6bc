-- Views of all paths and the rest are the date's views; every session has one entry. Warns: lists and totals are separate answers.
{{ config(severity='warn') }}

with paths as (

    select site_key, stat_date, sum(views) as views, sum(entries) as entries, count(*) = count(views) as is_whole
    from {{ ref('fct_page_daily') }}
    where vendor = 'pirsch' and {{ in_window('stat_date') }}
    group by site_key, stat_date

)

select *
from paths
inner join {{ ref('stg_pirsch__daily_stats') }} as totals using (site_key, stat_date)
where {{ in_window('totals.partition_date') }} and (paths.views > totals.views or paths.entries > totals.sessions or (paths.is_whole and paths.views <> totals.views))
