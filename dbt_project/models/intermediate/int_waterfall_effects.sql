{{ config(materialized='table') }}

{%- set metrics = ['visitors', 'sessions', 'views'] %}

-- The way from the anchor's number to the vendor's, one column a step: exact decimals, so that the parts add up exactly.
with days as (

    select * from {{ ref('int_waterfall_days') }}
    where coverage <> 'panel'

),

accepted as (

    select
        vendor,
        site_key,
        stat_date,
        {% for metric in metrics -%}
        sum(anchor_{{ metric }} * {{ metric }}_ratio) as expected_{{ metric }},
        sum(anchor_{{ metric }} * {{ metric }}_ratio * site_factor) as reached_{{ metric }}{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('int_acceptance_ratios') }}
    group by vendor, site_key, stat_date

),

untagged as (

    select
        vendor,
        site_key,
        stat_date,
        sum(anchor_views) as anchor_views,
        sum(views) as views,
        sum(anchor_only_sessions) as anchor_only_sessions
    from {{ ref('int_waterfall_missing_pages') }}
    group by vendor, site_key, stat_date

),

long as (

    {% for metric in metrics %}
    select
        days.vendor,
        days.site_key,
        days.stat_date,
        '{{ metric }}' as metric,
        days.is_complete,
        days.has_session_rows,
        days.{{ metric }} as vendor_value,
        days.anchor_{{ metric }} as anchor_value,
        days.{{ metric }} - days.native_{{ metric }} as day_boundary,
        days.native_{{ metric }} - days.ruled_{{ metric }} as definition,
        days.ruled_{{ metric }} - days.human_{{ metric }} as bots,
        -- All the vendor would have had of the anchor's: by country, at the ratio of the stretch.
        accepted.expected_{{ metric }} as expected,
        -- The same with what all countries went through together, which is nobody's consent and stays unexplained.
        accepted.reached_{{ metric }} as reached,
        days.flat_share_{{ metric }} as flat_share,
        {% if metric == 'views' -%}
        coalesce(untagged.anchor_views, 0) as anchor_untagged,
        coalesce(untagged.views, 0) as seen_untagged,
        {%- else -%}
        case
            -- Without its tag anywhere it loses everybody, not only those who stay on one group of pages.
            when untagged.vendor is not null and days.human_sessions = 0 then days.anchor_{{ metric }}
            else coalesce(untagged.anchor_only_sessions, 0) * days.anchor_{{ metric }} / nullif(days.anchor_sessions, 0)
        end as anchor_untagged,
        0 as seen_untagged,
        {%- endif %}
        untagged.vendor is not null as is_untagged
    from days
    left join accepted
        on days.vendor = accepted.vendor and days.site_key = accepted.site_key and days.stat_date = accepted.stat_date
    left join untagged
        on days.vendor = untagged.vendor and days.site_key = untagged.site_key and days.stat_date = untagged.stat_date
    where days.{{ metric }} is not null and days.anchor_{{ metric }} is not null
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

-- Effects in the vendor's own units: how many of its sessions each cause brought or cost.
raw_effects as (

    select
        *,
        vendor_value - anchor_value as gap,
        is_complete and has_session_rows as is_taken_apart,
        -reached * flat_share as sampling,
        expected - anchor_value as consent,
        -greatest(0, reached / nullif(anchor_value, 0) * anchor_untagged * (1 - flat_share) - seen_untagged) as tag_missing
    from long

),

effects as (

    select
        vendor,
        site_key,
        stat_date,
        metric,
        anchor_value,
        vendor_value,
        gap,
        is_complete,
        is_taken_apart,
        flat_share > 0 as is_flat,
        is_untagged,
        cast(if(is_complete, 0, gap) as decimal(18, 3)) as incomplete_partition,
        {% for component in ['day_boundary', 'definition', 'bots', 'sampling', 'consent', 'tag_missing'] -%}
        cast(if(is_taken_apart, coalesce({{ component }}, 0), 0) as decimal(18, 3)) as {{ component }}{{ ',' if not loop.last }}
        {% endfor %}
    from raw_effects

),

remaindered as (

    select
        *,
        cast(gap as decimal(18, 3)) - incomplete_partition - day_boundary - definition - bots - sampling - consent - tag_missing
            as unexplained
    from effects

)

select * from remaindered
