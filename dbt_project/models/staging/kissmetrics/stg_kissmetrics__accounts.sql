with source as (

    select * from {{ lake_source('kissmetrics', 'accounts') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        account_id,

        ---------- words
        name,
        status,
        contact_country,

        ---------- times
        snapshot_date,
        created_at,
        updated_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
