with source as (

    select * from {{ lake_source('pirsch', 'goals') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        goal_id,

        ---------- words
        name,
        path_pattern,
        pattern,
        event_name,

        ---------- numbers
        visitors,
        views,
        cr,
        visitor_goal,
        cr_goal_percent,

        ---------- flags
        possibly_truncated,

        ---------- times
        stat_date,
        defined_at,
        modified_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
