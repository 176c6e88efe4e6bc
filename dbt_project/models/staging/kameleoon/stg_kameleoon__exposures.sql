with source as (

    select * from {{ lake_source('kameleoon', 'exposures') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        visitor_code,
        exposure_number,
        experiment_id,
        variation_id,

        ---------- words
        kind,

        ---------- times
        visit_started_at,
        exposed_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
