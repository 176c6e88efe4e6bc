with source as (

    select * from {{ lake_source('pirsch', 'pages') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        path,
        title,

        ---------- numbers
        visitors,
        views,
        sessions,
        bounces,
        bounce_rate,
        relative_visitors,
        relative_views,
        average_time_on_page_seconds,
        entries,
        entry_rate,
        exits,
        exit_rate,

        ---------- flags
        possibly_truncated,
        entries_possibly_truncated,
        exits_possibly_truncated,

        ---------- times
        stat_date,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
