{{ config(materialized='table') }}

with experiments as (

    select * from {{ ref('dim_experiment') }}

),

exposures as (

    select * from {{ ref('fct_experiment_exposures') }}

),

attributed as (

    select * from {{ ref('fct_experiment_conversions') }}

),

planned as (

    select experiments.experiment_key, plan.variation_id, plan.planned_share
    from {{ ref('experiment_plan') }} as plan
    inner join experiments using (vendor, site_key, experiment_id)

),

-- Variations planned or seen; a planned one that nobody saw is the surest sign of a broken split.
arms as (

    select
        coalesce(seen.experiment_key, planned.experiment_key) as experiment_key,
        coalesce(seen.variation_id, planned.variation_id) as variation_id,
        planned.planned_share
    from (select distinct experiment_key, variation_id from exposures) as seen
    full join planned on seen.experiment_key = planned.experiment_key and seen.variation_id = planned.variation_id

),

bounds as (

    select experiment_key, min(on_date) as first_date, max(on_date) as last_date
    from (
        select experiment_key, first_exposed_date as on_date from exposures
        union all
        select experiment_key, stat_date as on_date from attributed
    )
    group by experiment_key

),

grid as (

    select
        arms.experiment_key,
        arms.variation_id,
        cast(unnest(generate_series(bounds.first_date, bounds.last_date, interval 1 day)) as date) as stat_date,
        case experiments.split_source
            when 'plan' then arms.planned_share
            else 1 / count(*) over (partition by arms.experiment_key)
        end as planned_share
    from arms
    inner join bounds on arms.experiment_key = bounds.experiment_key
    inner join experiments on arms.experiment_key = experiments.experiment_key

),

joined as (

    select
        experiment_key,
        variation_id,
        first_exposed_date as stat_date,
        count(*) as new_visitors,
        count(*) filter (is_flipped) as new_flipped,
        count(*) filter (seen_by is not null) as new_matched
    from exposures
    group by all

),

converted as (

    select
        experiment_key,
        variation_id,
        stat_date,
        count(*) filter (is_first_of_visitor) as new_conversions,
        sum(revenue) as new_revenue
    from attributed
    group by all

),

running as (

    select
        grid.experiment_key,
        grid.variation_id,
        grid.stat_date,
        grid.planned_share,
        coalesce(joined.new_visitors, 0) as new_visitors,
        coalesce(converted.new_conversions, 0) as new_conversions,
        converted.new_revenue,
        sum(coalesce(joined.new_visitors, 0)) over so_far as visitors,
        sum(coalesce(joined.new_flipped, 0)) over so_far as flipped,
        sum(coalesce(joined.new_matched, 0)) over so_far as matched,
        sum(coalesce(converted.new_conversions, 0)) over so_far as conversions,
        sum(converted.new_revenue) over so_far as revenue
    from grid
    left join joined using (experiment_key, variation_id, stat_date)
    left join converted using (experiment_key, variation_id, stat_date)
    window so_far as (partition by grid.experiment_key, grid.variation_id order by grid.stat_date)

),

final as (

    select
        experiment_key,
        variation_id,
        stat_date,
        cast(planned_share as double) as planned_share,
        cast(new_visitors as bigint) as new_visitors,
        cast(new_conversions as bigint) as new_conversions,
        cast(new_revenue as decimal(18, 4)) as new_revenue,
        cast(visitors as bigint) as visitors,
        cast(flipped as bigint) as flipped_visitors,
        cast(matched as bigint) as matched_visitors,
        cast(conversions as bigint) as conversions,
        cast(revenue as decimal(18, 4)) as revenue
    from running

)

select * from final
