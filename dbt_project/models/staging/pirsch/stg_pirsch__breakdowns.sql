with source as (

    select * from {{ lake_source('pirsch', 'breakdowns') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        dimension,
        value,
        parent_value,

        ---------- words
        referrer_example,

        ---------- numbers
        visitors,
        relative_visitors,
        sessions,
        bounces,
        bounce_rate,

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
