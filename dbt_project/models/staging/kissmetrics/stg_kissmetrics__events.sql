with source as (

    select * from {{ lake_source('kissmetrics', 'events') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        event_id,
        product_id,

        ---------- words
        name,
        display_name,
        description,

        ---------- numbers
        vendor_index,
        total,

        ---------- flags
        is_visible,

        ---------- times
        snapshot_date,
        first_used_at,
        last_used_at,
        first_sent_at,
        last_sent_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
