with source as (

    select * from {{ lake_source('kameleoon', 'conversions') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        visitor_code,
        conversion_number,
        goal_id,

        ---------- numbers
        revenue,

        ---------- flags
        is_reversal,

        ---------- times
        visit_started_at,
        converted_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
