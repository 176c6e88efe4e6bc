with source as (

    select * from {{ lake_source('pirsch', 'daily_stats') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- words
        domain_timezone,

        ---------- numbers
        visitors,
        views,
        sessions,
        bounces,
        bounce_rate,
        average_session_seconds,

        ---------- times
        stat_date,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
