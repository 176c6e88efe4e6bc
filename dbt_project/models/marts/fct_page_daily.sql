{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with listed as (

    {% for vendor in var('page_list_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__page_lists') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

views as (

    select * from {{ ref('int_pages_unioned') }}
    where path is not null

),

titles as (

    select vendor, site_key, session_date_local, path, title
    from views
    where title is not null
    group by vendor, site_key, session_date_local, path, title
    qualify row_number() over (
        partition by vendor, site_key, session_date_local, path
        order by count(*) desc, title
    ) = 1

),

-- Pages of listed sessions, on the date their session began.
counted as (

    select
        vendor,
        site_key,
        session_date_local as stat_date,
        path,
        nullif(count(distinct vendor_visitor_id), 0) as visitors,
        count(*) as views,
        count(distinct session_key) as sessions,
        case when count(is_bounce_native) > 0 then count(distinct session_key) filter (is_bounce_native) end as bounces,
        count(*) filter (is_entry) as entries,
        count(*) filter (is_exit) as exits,
        -- Whole milliseconds are summed: a sum of fractions would depend on the order of the rows.
        sum(cast(round(seconds_on_page * 1000) as bigint)) / 1000 / nullif(count(seconds_on_page), 0) as average_time_seconds,
        count(viewed_at_utc) > 0 as is_timed
    from views
    group by vendor, site_key, session_date_local, path

),

derived as (

    select
        counted.*,
        counted.entries / counted.sessions as entry_rate,
        counted.exits / counted.sessions as exit_rate,
        titles.title,
        false as is_other,
        false as is_list_cut,
        false as is_entry_list_cut,
        false as is_exit_list_cut,
        'no_visitor_id' as people_reason,
        'no_page_counts' as list_reason,
        case when counted.is_timed then 'no_next_view' else 'no_page_times' end as time_reason
    from counted
    left join titles
        on
            counted.vendor = titles.vendor
            and counted.site_key = titles.site_key
            and counted.stat_date = titles.session_date_local
            and counted.path = titles.path

),

unioned as (

    select *, 'reported' as source from listed
    union all by name
    select *, 'derived' as source from derived

),

final as (

    select
        ---------- grain
        vendor,
        site_key,
        stat_date,
        path,
        'native' as basis,
        is_other,
        case when not is_other then {{ page_key('site_key', 'path') }} end as page_key,

        ---------- measures
        cast(visitors as bigint) as visitors,
        cast(views as bigint) as views,
        cast(sessions as bigint) as sessions,
        cast(bounces as bigint) as bounces,
        cast(entries as bigint) as entries,
        cast(exits as bigint) as exits,
        entry_rate,
        exit_rate,
        average_time_seconds,
        {{ null_reasons({
            'visitors': 'people_reason', 'views': 'list_reason', 'sessions': 'people_reason', 'bounces': 'list_reason',
            'entries': 'list_reason', 'exits': 'list_reason', 'entry_rate': 'people_reason', 'exit_rate': 'people_reason',
            'average_time_seconds': 'time_reason',
        }) }} as reason_null,

        ---------- how good
        title,
        source,
        is_list_cut,
        is_entry_list_cut,
        is_exit_list_cut
    from unioned
    where {{ in_window('stat_date') }}

)

select * from final
