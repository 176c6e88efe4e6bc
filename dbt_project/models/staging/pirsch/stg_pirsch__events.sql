with source as (

    select * from {{ lake_source('pirsch', 'events') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        name,

        ---------- words
        meta_keys,

        ---------- numbers
        visitors,
        views,
        cr,
        average_duration_seconds,
        event_count,

        ---------- flags
        possibly_truncated,

        ---------- times
        stat_date,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
