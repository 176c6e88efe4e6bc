{{ config(materialized='table') }}

with experiments as (

    select * from {{ ref('dim_experiment') }}

),

running as (

    select * from {{ ref('fct_experiment_counts_daily') }}

),

compared as (

    select
        running.*,
        running.variation_id = experiments.reference_variation_id as is_reference,
        max(running.visitors) filter (running.variation_id = experiments.reference_variation_id) over on_date as reference_visitors,
        max(running.conversions) filter (running.variation_id = experiments.reference_variation_id) over on_date as reference_conversions,
        sum(running.flipped_visitors) over on_date as experiment_flipped,
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
        new_visitors,
        new_conversions,
        new_revenue,
        visitors,
        conversions,
        revenue,
        rate as conversion_rate,
        {{ wilson('conversions', 'visitors', -1) }} as conversion_rate_low,
        {{ wilson('conversions', 'visitors', 1) }} as conversion_rate_high,
        case when visitors > 0 then cast(revenue as double) / visitors end as revenue_per_visitor,
        case when lift_reason is null then rate / reference_rate - 1 end as lift,
        case when lift_reason is null then rate / reference_rate * exp(-1.959964 * log_error) - 1 end as lift_low,
        case when lift_reason is null then rate / reference_rate * exp(1.959964 * log_error) - 1 end as lift_high,
        case when lift_reason is null then {{ normal_two_sided('z') }} end as p_value,
        planned_share,
        cast(expected_visitors as double) as expected_visitors,
        {{ chi2_survival('chi_square', 'degrees') }} as srm_p,
        experiment_flipped / nullif(experiment_visitors, 0) as flip_rate,
        matched_visitors / nullif(visitors, 0) as analytics_match_rate,
        nullif(concat_ws(', ', 'lift=' || lift_reason, 'srm_p=' || srm_reason, case when revenue is null then 'revenue=none_told' end), '')
            as reason_null
    from tested

)

select * from final
