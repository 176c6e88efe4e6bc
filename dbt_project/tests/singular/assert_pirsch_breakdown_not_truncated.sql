-- A list of 100 values is cut: it has exactly one row for its rest, no other list has one, and what adds up adds up to the day's total.
{{ config(meta={'dagster': {'ref': {'name': 'fct_daily_breakdown'}}}) }}

with lists as (

    select
        site_key,
        stat_date,
        dimension,
        count(*) as value_count,
        bool_or(possibly_truncated) as is_cut
    from {{ ref('stg_pirsch__breakdowns') }}
    where {{ in_window('partition_date') }}
    group by site_key, stat_date, dimension

),

published as (

    select
        site_key,
        stat_date,
        dimension,
        count(*) filter (is_other) as rest_count,
        sum(sessions) as session_sum,
        count(*) = count(sessions) as has_all_sessions
    from {{ ref('fct_daily_breakdown') }}
    where vendor = 'pirsch' and {{ in_window('stat_date') }}
    group by site_key, stat_date, dimension

)

select *
from lists
left join published using (site_key, stat_date, dimension)
inner join {{ ref('stg_pirsch__daily_stats') }} as totals using (site_key, stat_date)
where
    {{ in_window('totals.partition_date') }}
    and (
        lists.is_cut <> (coalesce(published.rest_count, 0) = 1)
        or (lists.value_count >= 100 and not lists.is_cut)
        or (lists.is_cut and lists.dimension = 'referrer' and published.has_all_sessions and published.session_sum <> totals.sessions)
    )
