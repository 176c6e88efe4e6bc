{{ config(materialized='table') }}

{%- set same_arm = 'experiment_key, variation_id' %}

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

compared as (

    select
        running.*,
        running.variation_id = experiments.reference_variation_id as is_reference,
        max(running.visitors) filter (running.variation_id = experiments.reference_variation_id) over on_date as reference_visitors,
        max(running.conversions) filter (running.variation_id = experiments.reference_variation_id) over on_date as reference_conversions,
        sum(running.flipped) over on_date as experiment_flipped,
        sum(running.visitors) over on_date as experiment_visitors,
        sum(running.visitors) filter (running.planned_share > 0) over on_date as planned_visitors,
        count(*) filter (running.planned_share > 0) over on_date as planned_count,
        experiments.* exclude (experiment_key, reference_variation_id)
    from running
    inner join experiments on running.experiment_key = experiments.experiment_key
    window on_date as (partition by running.experiment_key, running.stat_date)

),

measured as (

    select
        *,
        conversions / nullif(visitors, 0) as rate,
        reference_conversions / nullif(reference_visitors, 0) as reference_rate,
        (conversions + reference_conversions) / nullif(visitors + reference_visitors, 0) as pooled_rate,
        case when kind = 'experiment' then planned_share * planned_visitors end as expected_visitors,
        case
            when kind <> 'experiment' then 'split_not_planned'
            when planned_count < 2 then 'one_variation'
            when min(planned_share * planned_visitors) over (partition by experiment_key, stat_date) < 5 then 'too_few_visitors'
        end as srm_reason,
        cast(planned_count - 1 as bigint) as degrees
    from compared

),

tested as (

    select
        *,
        case
            when srm_reason is null then sum(
                case when planned_share > 0 then power(visitors - expected_visitors, 2) / expected_visitors end
            ) over (partition by experiment_key, stat_date)
        end as chi_square,
        case
            when is_reference then 'is_reference'
            when reference_visitors is null then 'no_reference'
            when visitors = 0 or reference_visitors = 0 then 'nobody_exposed'
            when conversions = 0 or reference_conversions = 0 then 'no_conversions'
        end as lift_reason,
        sqrt((1 - rate) / nullif(conversions, 0) + (1 - reference_rate) / nullif(reference_conversions, 0)) as log_error,
        (rate - reference_rate) / nullif(sqrt(pooled_rate * (1 - pooled_rate) * (1 / visitors + 1 / nullif(reference_visitors, 0))), 0) as z
    from measured

),

final as (

    select
        experiment_key,
        vendor,
        site_key,
        kind,
        experiment_id,
        variation_id,
        stat_date,
        coalesce(is_reference, false) as is_reference,
        coalesce(primary_goal_key, '(any)') as goal_key,
        cast(new_visitors as bigint) as new_visitors,
        cast(new_conversions as bigint) as new_conversions,
        cast(new_revenue as decimal(18, 4)) as new_revenue,
        cast(visitors as bigint) as visitors,
        cast(conversions as bigint) as conversions,
        cast(revenue as decimal(18, 4)) as revenue,
        rate as conversion_rate,
        {{ wilson('conversions', 'visitors', -1) }} as conversion_rate_low,
        {{ wilson('conversions', 'visitors', 1) }} as conversion_rate_high,
        case when visitors > 0 then cast(revenue as double) / visitors end as revenue_per_visitor,
        case when lift_reason is null then rate / reference_rate - 1 end as lift,
        case when lift_reason is null then rate / reference_rate * exp(-1.959964 * log_error) - 1 end as lift_low,
        case when lift_reason is null then rate / reference_rate * exp(1.959964 * log_error) - 1 end as lift_high,
        case when lift_reason is null then {{ normal_two_sided('z') }} end as p_value,
        cast(planned_share as double) as planned_share,
        cast(expected_visitors as double) as expected_visitors,
        {{ chi2_survival('chi_square', 'degrees') }} as srm_p,
        experiment_flipped / nullif(experiment_visitors, 0) as flip_rate,
        matched / nullif(visitors, 0) as analytics_match_rate,
        nullif(concat_ws(', ', 'lift=' || lift_reason, 'srm_p=' || srm_reason, case when revenue is null then 'revenue=none_told' end), '')
            as reason_null
    from tested

)

select * from final
