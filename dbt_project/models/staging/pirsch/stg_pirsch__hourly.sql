with source as (

    select * from {{ lake_source('pirsch', 'hourly') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        hour,

        ---------- numbers
        visitors,
        views,
        sessions,
        bounces,
        bounce_rate,

        ---------- times
        stat_date,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
