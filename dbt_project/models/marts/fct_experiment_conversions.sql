{{ config(materialized='table') }}

with exposures as (

    select * from {{ ref('fct_experiment_exposures') }}

),

experiments as (

    select experiment_key, primary_goal_key from {{ ref('dim_experiment') }}

),

conversions as (

    select * from {{ ref('fct_conversions') }}

),

-- What was bought before the first exposure was not brought about by it.
attributed as (

    select
        exposures.experiment_key,
        exposures.variation_id,
        exposures.first_exposed_at_utc,
        conversions.*
    from exposures
    inner join experiments on exposures.experiment_key = experiments.experiment_key
    inner join conversions
        on
            exposures.vendor = conversions.vendor
            and exposures.site_key = conversions.site_key
            and exposures.vendor_visitor_id = conversions.vendor_visitor_id
            and conversions.goal_key = coalesce(experiments.primary_goal_key, conversions.goal_key)
            and conversions.converted_at_utc >= exposures.first_exposed_at_utc
            and conversions.converted_at_utc < exposures.first_exposed_at_utc + interval {{ var('experiment_conversion_days') }} day
    where not conversions.is_reversal

),

-- A reversal belongs to the experiment its original belongs to, whenever it came.
taken_back as (

    select
        attributed.experiment_key,
        attributed.variation_id,
        attributed.first_exposed_at_utc,
        conversions.*
    from conversions
    inner join attributed on conversions.original_conversion_key = attributed.conversion_key
    where conversions.is_reversal

),

unioned as (

    select * from attributed
    union all by name
    select * from taken_back

),

final as (

    select
        experiment_key,
        conversion_key,
        variation_id,
        vendor_visitor_id,
        goal_key,
        first_exposed_at_utc,
        converted_at_utc,
        stat_date,
        revenue,
        is_reversal,
        is_reversed,
        not is_reversal and not is_reversed and row_number() over (
            partition by experiment_key, vendor_visitor_id, is_reversal or is_reversed order by converted_at_utc, conversion_key
        ) = 1 as is_first_of_visitor
    from unioned

)

select * from final
