with source as (

    select * from {{ lake_source('inspectlet', 'websites') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        wid,

        ---------- words
        site_name,

        ---------- times
        snapshot_date,
        added_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
