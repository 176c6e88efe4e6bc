{{ config(materialized='table') }}

-- Groups of pages on which the anchor has views and the vendor, on that date, (nearly) none.
with days as (

    select * from {{ ref('int_waterfall_days') }}
    where is_complete and has_session_rows and coverage <> 'panel' and anchor_views > 0

),

anchor as (

    select site_key, stat_date, page_group, views, landings, singles
    from {{ ref('int_measured_pages') }}
    where vendor = '{{ var("reconciliation_anchor") }}'

),

ours as (

    select vendor, site_key, stat_date, page_group, views, landings, singles, onlies
    from {{ ref('int_measured_pages') }}
    where vendor <> '{{ var("reconciliation_anchor") }}'

),

usual as (

    select vendor, site_key, median(human_views / (anchor_views * greatest(1 - flat_share_views, 0.05))) as usual_ratio
    from days
    group by vendor, site_key

),

paired as (

    select
        days.vendor,
        days.site_key,
        days.stat_date,
        anchor.page_group,
        anchor.views as anchor_views,
        anchor.landings as anchor_landings,
        anchor.singles as anchor_singles,
        coalesce(ours.views, 0) as views,
        days.flat_share_views,
        usual.usual_ratio,
        (days.human_views - coalesce(ours.views, 0))
        / nullif((days.anchor_views - anchor.views) * greatest(1 - days.flat_share_views, 0.05), 0) as ratio_elsewhere
    from days
    inner join anchor on days.site_key = anchor.site_key and days.stat_date = anchor.stat_date
    inner join usual on days.vendor = usual.vendor and days.site_key = usual.site_key
    left join ours
        on
            days.vendor = ours.vendor
            and days.site_key = ours.site_key
            and days.stat_date = ours.stat_date
            and anchor.page_group = ours.page_group

),

-- What the vendor would have had there: its ratio elsewhere on that date, no more than usual and no less than half of it
-- (where the tag is gone from several groups, elsewhere is empty too).
expected as (

    select
        *,
        anchor_views * (1 - flat_share_views)
        * least(greatest(coalesce(ratio_elsewhere, 0), usual_ratio / 2), usual_ratio) as expected_views
    from paired

),

empty as (

    select * from expected
    where
        expected_views >= {{ var('missing_least_views') }}
        and views <= {{ var('missing_most_share') }} * expected_views

),

-- A deploy does not wait for midnight, and the anchor's midnight may be another one: the dates around an empty one may be
-- empty in part.
edges as (

    select expected.*
    from expected
    anti join empty using (vendor, site_key, stat_date, page_group)
    where
        expected.expected_views - expected.views >= {{ var('missing_least_views') }}
        and expected.views <= {{ var('missing_edge_share') }} * expected.expected_views
        and exists (
            select 1 from empty
            where
                empty.vendor = expected.vendor
                and empty.site_key = expected.site_key
                and empty.page_group = expected.page_group
                and abs(empty.stat_date - expected.stat_date) = 1
        )

),

missing as (

    select * from empty
    union all by name
    select * from edges

),

-- How often a visit that lands there and goes on stays there: of the dates on which the tag was there.
staying as (

    select
        ours.vendor,
        ours.site_key,
        ours.page_group,
        (sum(ours.onlies) - sum(ours.singles)) / nullif(sum(ours.landings) - sum(ours.singles), 0) as staying_share
    from ours
    anti join missing
        on
            ours.vendor = missing.vendor
            and ours.site_key = missing.site_key
            and ours.stat_date = missing.stat_date
            and ours.page_group = missing.page_group
    group by ours.vendor, ours.site_key, ours.page_group

),

final as (

    select
        missing.vendor,
        missing.site_key,
        missing.stat_date,
        missing.page_group,
        missing.anchor_views,
        missing.views,
        missing.expected_views,
        -- Visits that saw nothing but these pages vanish; the others only lose views.
        (
            missing.anchor_singles
            + greatest(missing.anchor_landings - missing.anchor_singles, 0) * coalesce(staying.staying_share, 0)
        ) * (1 - missing.views / missing.expected_views) as anchor_only_sessions
    from missing
    left join staying
        on
            missing.vendor = staying.vendor
            and missing.site_key = staying.site_key
            and missing.page_group = staying.page_group

)

select * from final
