with pages as (

    select * from {{ ref('stg_pirsch__pages') }}
    where {{ in_window('partition_date', 1) }}

),

listed as (

    select site_key, stat_date, 'page_views' as measure, path as value, views as amount, possibly_truncated as is_cut
    from pages
    where views is not null

    union all

    select site_key, stat_date, 'entries' as measure, path as value, entries as amount, entries_possibly_truncated as is_cut
    from pages
    where entries is not null

    union all

    select site_key, stat_date, 'exits' as measure, path as value, exits as amount, exits_possibly_truncated as is_cut
    from pages
    where exits is not null

    union all

    select site_key, stat_date, 'referrer_sessions' as measure, value, sessions as amount, possibly_truncated as is_cut
    from {{ ref('stg_pirsch__breakdowns') }}
    where dimension = 'referrer' and sessions is not null and {{ in_window('partition_date', 1) }}

),

summed as (

    select site_key, stat_date, measure, value, cast(sum(amount) as bigint) as amount, bool_or(is_cut) as is_cut
    from listed
    group by site_key, stat_date, measure, value

),

left_over as (

    select
        summed.site_key,
        summed.stat_date,
        summed.measure,
        -- Views are all of the day's views; every session has one entry, one exit and one referrer.
        any_value(if(summed.measure = 'page_views', totals.views, totals.sessions)) - cast(sum(summed.amount) as bigint) as amount
    from summed
    inner join {{ ref('stg_pirsch__daily_stats') }} as totals
        on summed.site_key = totals.site_key and summed.stat_date = totals.stat_date
    where {{ in_window('totals.partition_date', 1) }}
    group by summed.site_key, summed.stat_date, summed.measure
    having bool_or(summed.is_cut)

),

completed as (

    select site_key, stat_date, measure, value, amount, is_cut, false as is_other
    from summed

    union all

    -- A negative rest means that list and total were read at different moments of a day that still moved.
    select site_key, stat_date, measure, '(other)' as value, amount, true as is_cut, true as is_other
    from left_over
    where amount > 0

)

select * from completed
