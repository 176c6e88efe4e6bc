{{ config(materialized='table') }}

with exposures as (

    select * from {{ ref('fct_experiment_exposures') }}

),

planned as (

    select
        vendor,
        site_key,
        experiment_id,
        max(variation_id) filter (is_reference) as reference_variation_id,
        max(primary_goal_key) as primary_goal_key,
        count(*) as planned_variation_count
    from {{ ref('experiment_plan') }}
    group by vendor, site_key, experiment_id

),

seen as (

    select
        experiment_key,
        vendor,
        site_key,
        kind,
        experiment_id,
        count(distinct variation_id) as variation_count,
        string_agg(distinct variation_id, ', ' order by variation_id) as variation_ids,
        -- The vendor's own reference is 0; where it never ran, no variation is measured against another.
        max(variation_id) filter (variation_id = '0') as zero_variation_id,
        min(first_exposed_date) as first_exposed_date,
        max(first_exposed_date) as last_first_exposed_date,
        count(*) as visitors
    from exposures
    group by experiment_key, vendor, site_key, kind, experiment_id

),

final as (

    select
        seen.experiment_key,
        seen.vendor,
        seen.site_key,
        seen.kind,
        seen.experiment_id,
        cast(seen.variation_count as integer) as variation_count,
        seen.variation_ids,
        coalesce(planned.reference_variation_id, seen.zero_variation_id) as reference_variation_id,
        planned.primary_goal_key,
        if(planned.experiment_id is null, 'equal', 'plan') as split_source,
        seen.first_exposed_date,
        seen.last_first_exposed_date,
        seen.visitors
    from seen
    left join planned
        on seen.vendor = planned.vendor and seen.site_key = planned.site_key and seen.experiment_id = planned.experiment_id

)

select * from final
