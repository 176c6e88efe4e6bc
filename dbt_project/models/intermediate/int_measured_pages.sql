{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with walks as (

    select
        vendor,
        site_key,
        stat_date,
        page_groups,
        view_count,
        page_groups[1] as landing_group,
        len(list_distinct(page_groups)) = 1 as is_only
    from {{ ref('int_session_walks') }}
    where not is_suspected_bot and len(page_groups) > 0

),

-- Views without reloads are known per session, not per group: they are spread as the listed views are.
viewed as (

    select
        vendor,
        site_key,
        stat_date,
        unnest(page_groups) as page_group,
        view_count / len(page_groups) as weight
    from walks

),

views as (

    select vendor, site_key, stat_date, page_group, round(sum(weight), 6) as views
    from viewed
    group by all

),

landed as (

    select
        vendor,
        site_key,
        stat_date,
        landing_group as page_group,
        count(*) as landings,
        count(*) filter (view_count = 1) as singles,
        count(*) filter (is_only) as onlies
    from walks
    group by all

),

measured as (

    select
        views.vendor,
        views.site_key,
        views.stat_date,
        views.page_group,
        views.views,
        cast(coalesce(landed.landings, 0) as bigint) as landings,
        cast(coalesce(landed.singles, 0) as bigint) as singles,
        cast(coalesce(landed.onlies, 0) as bigint) as onlies
    from views
    left join landed
        on
            views.vendor = landed.vendor
            and views.site_key = landed.site_key
            and views.stat_date = landed.stat_date
            and views.page_group = landed.page_group

    {% for vendor in var('aggregate_vendors') %}
    union all by name

    select
        '{{ vendor }}' as vendor,
        site_key,
        stat_date,
        page_group,
        cast(views as double) as views,
        cast(landings as bigint) as landings,
        cast(singles as bigint) as singles
    from {{ ref('int_' ~ vendor ~ '__measured_pages') }}
    {% endfor %}

)

select * from measured
where {{ in_window('stat_date') }}
