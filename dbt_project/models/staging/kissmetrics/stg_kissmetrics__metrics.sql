with source as (

    select * from {{ lake_source('kissmetrics', 'metrics') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        metric_id,
        product_id,

        ---------- words
        title,
        description,
        unit_type,
        status,
        color,

        ---------- numbers
        sort_index,

        ---------- flags
        is_visible,

        ---------- times
        snapshot_date,
        config_last_changed_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
