{{ config(materialized='table') }}

-- One row per vendor, site, date and country: the ratio of the stretch the date lies in.
with days as (

    select * from {{ ref('int_acceptance_days') }}

),

segments as (

    select
        vendor,
        site_key,
        country_bucket,
        cast(stat_date as date) as stat_date,
        cast(stretch_start_date as date) as stretch_start_date,
        site_factor
    from {{ ref('int_acceptance_segments') }}

),

placed as (

    select days.*, segments.stretch_start_date, segments.site_factor
    from days
    inner join segments
        on
            days.vendor = segments.vendor
            and days.site_key = segments.site_key
            and days.country_bucket = segments.country_bucket
            and days.stat_date = segments.stat_date

),

ratios as (

    select
        vendor,
        site_key,
        country_bucket,
        stretch_start_date,
        count(*) filter (is_training) as training_days,
        {% for metric in ['sessions', 'visitors', 'views'] -%}
        sum({{ metric }}) filter (is_training) / nullif(sum(anchor_{{ metric }} * site_factor) filter (is_training), 0) as {{ metric }}_ratio{{ ',' if not loop.last }}
        {% endfor %}
    from placed
    group by vendor, site_key, country_bucket, stretch_start_date

),

-- Where a stretch has no date to learn from, the site's own ratio stands in.
overall as (

    select
        vendor,
        site_key,
        {% for metric in ['sessions', 'visitors', 'views'] -%}
        sum({{ metric }}) filter (is_training) / nullif(sum(anchor_{{ metric }} * site_factor) filter (is_training), 0) as {{ metric }}_ratio{{ ',' if not loop.last }}
        {% endfor %}
    from placed
    group by vendor, site_key

),

final as (

    select
        placed.vendor,
        placed.site_key,
        placed.stat_date,
        placed.country_bucket,
        placed.stretch_start_date,
        placed.site_factor,
        ratios.training_days,
        {% for metric in ['sessions', 'visitors', 'views'] -%}
        placed.all_anchor_{{ metric }} as anchor_{{ metric }},
        coalesce(ratios.{{ metric }}_ratio, overall.{{ metric }}_ratio) as {{ metric }}_ratio{{ ',' if not loop.last }}
        {% endfor %}
    from placed
    inner join ratios
        on
            placed.vendor = ratios.vendor
            and placed.site_key = ratios.site_key
            and placed.country_bucket = ratios.country_bucket
            and placed.stretch_start_date = ratios.stretch_start_date
    inner join overall on placed.vendor = overall.vendor and placed.site_key = overall.site_key

)

select * from final
