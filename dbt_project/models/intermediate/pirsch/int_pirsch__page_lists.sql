with pages as (

    select * from {{ ref('stg_pirsch__pages') }}
    where {{ in_window('partition_date') }}

),

-- Which of the date's three lists were cut. A list that is not cut says zero of every path it leaves out.
lists as (

    select
        site_key,
        stat_date,
        coalesce(bool_or(possibly_truncated), false) as is_list_cut,
        coalesce(bool_or(entries_possibly_truncated), false) as is_entry_list_cut,
        coalesce(bool_or(exits_possibly_truncated), false) as is_exit_list_cut
    from pages
    group by site_key, stat_date

),

-- One path, several titles: views, bounces, entries and exits add up, people and sessions do not.
by_path as (

    select
        site_key,
        stat_date,
        path,
        count(*) as title_count,
        case when count(*) = 1 then any_value(visitors) end as visitors,
        sum(views) as views,
        case when count(*) = 1 then any_value(sessions) end as sessions,
        sum(bounces) as bounces,
        sum(entries) as entries,
        sum(exits) as exits,
        case when count(*) = 1 then any_value(entry_rate) end as entry_rate,
        case when count(*) = 1 then any_value(exit_rate) end as exit_rate,
        case when count(*) = 1 and sum(views) > 0 then any_value(average_time_on_page_seconds) end as average_time_seconds,
        min(title) filter (title <> '') as title
    from pages
    group by site_key, stat_date, path

),

completed as (

    select
        by_path.* exclude (views, bounces, entries, exits),
        lists.* exclude (site_key, stat_date),
        false as is_other,
        coalesce(by_path.views, case when not lists.is_list_cut then 0 end) as views,
        coalesce(by_path.bounces, case when not lists.is_list_cut then 0 end) as bounces,
        coalesce(by_path.entries, case when not lists.is_entry_list_cut then 0 end) as entries,
        coalesce(by_path.exits, case when not lists.is_exit_list_cut then 0 end) as exits
    from by_path
    inner join lists on by_path.site_key = lists.site_key and by_path.stat_date = lists.stat_date

),

others as (

    select
        rests.site_key,
        rests.stat_date,
        '(other)' as path,
        cast(0 as bigint) as title_count,
        true as is_other,
        max(rests.amount) filter (rests.measure = 'page_views') as views,
        max(rests.amount) filter (rests.measure = 'entries') as entries,
        max(rests.amount) filter (rests.measure = 'exits') as exits,
        any_value(lists.is_list_cut) as is_list_cut,
        any_value(lists.is_entry_list_cut) as is_entry_list_cut,
        any_value(lists.is_exit_list_cut) as is_exit_list_cut
    from {{ ref('int_pirsch__lists_completed') }} as rests
    inner join lists on rests.site_key = lists.site_key and rests.stat_date = lists.stat_date
    where rests.is_other and rests.measure in ('page_views', 'entries', 'exits')
    group by rests.site_key, rests.stat_date

),

unioned as (

    select * from completed
    union all by name
    select * from others

),

mapped as (

    select
        'pirsch' as vendor,
        *,
        case
            when is_other then 'not_additive'
            when title_count > 1 then 'grouped_by_title'
            else 'list_cut'
        end as people_reason,
        case when is_other then 'in_the_rest' else 'list_cut' end as list_reason,
        case
            when is_other then 'in_the_rest'
            when title_count > 1 then 'grouped_by_title'
            when views = 0 then 'no_views'
            else 'list_cut'
        end as time_reason
    from unioned

)

select * from mapped
