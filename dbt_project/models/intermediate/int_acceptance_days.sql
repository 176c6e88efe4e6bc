{{ config(materialized='table') }}

-- One row per vendor, site, date and country: what the anchor had there (as far as the vendor was recording) and what the vendor had.
with days as (

    select * from {{ ref('int_waterfall_days') }}
    where has_session_rows and coverage <> 'panel' and anchor_sessions > 0

),

untagged as (

    select distinct vendor, site_key, stat_date
    from {{ ref('int_waterfall_missing_pages') }}

),

anchor as (

    select site_key, stat_date, country_code, visitors
    from {{ ref('int_measured_countries') }}
    where vendor = '{{ var("reconciliation_anchor") }}'

),

first_date as (

    select min(stat_date) as first_date from days

),

-- Countries with too few visitors for a ratio of their own share one; so do the unknown ones.
buckets as (

    select
        anchor.site_key,
        anchor.country_code,
        if(
            sum(anchor.visitors) >= {{ var('acceptance_least_visitors') }} and anchor.country_code <> 'ZZ',
            anchor.country_code,
            'rest'
        ) as country_bucket
    from anchor
    inner join first_date on anchor.stat_date >= first_date.first_date
    group by anchor.site_key, anchor.country_code

),

anchor_shares as (

    select
        anchor.site_key,
        anchor.stat_date,
        buckets.country_bucket,
        sum(anchor.visitors) as visitors,
        sum(sum(anchor.visitors)) over (partition by anchor.site_key, anchor.stat_date) as all_visitors
    from anchor
    inner join buckets on anchor.site_key = buckets.site_key and anchor.country_code = buckets.country_code
    group by anchor.site_key, anchor.stat_date, buckets.country_bucket

),

ours as (

    select
        measured.vendor,
        measured.site_key,
        measured.stat_date,
        coalesce(buckets.country_bucket, 'rest') as country_bucket,
        sum(measured.sessions) as sessions,
        sum(measured.visitors) as visitors,
        sum(measured.views) as views
    from {{ ref('int_measured_countries') }} as measured
    left join buckets on measured.site_key = buckets.site_key and measured.country_code = buckets.country_code
    where measured.vendor <> '{{ var("reconciliation_anchor") }}'
    group by all

),

final as (

    select
        days.vendor,
        days.site_key,
        days.stat_date,
        coalesce(anchor_shares.country_bucket, 'rest') as country_bucket,
        {% for metric in ['sessions', 'visitors', 'views'] -%}
        coalesce(ours.{{ metric }}, 0) as {{ metric }},
        -- The anchor says visitors by country; sessions and views are shared out in that proportion.
        days.anchor_{{ metric }} * coalesce(anchor_shares.visitors / anchor_shares.all_visitors, 1) as all_anchor_{{ metric }},
        days.anchor_{{ metric }} * coalesce(anchor_shares.visitors / anchor_shares.all_visitors, 1)
        * (1 - days.flat_share_{{ metric }}) as anchor_{{ metric }},
        {% endfor -%}
        days.is_complete and untagged.vendor is null as is_training
    from days
    left join anchor_shares on days.site_key = anchor_shares.site_key and days.stat_date = anchor_shares.stat_date
    left join ours
        on
            days.vendor = ours.vendor
            and days.site_key = ours.site_key
            and days.stat_date = ours.stat_date
            and coalesce(anchor_shares.country_bucket, 'rest') = ours.country_bucket
    left join untagged
        on days.vendor = untagged.vendor and days.site_key = untagged.site_key and days.stat_date = untagged.stat_date

)

select * from final
