with source as (

    select * from {{ lake_source('kissmetrics', 'reports') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        report_id,
        product_id,
        account_id,

        ---------- words
        name,
        report_type,

        ---------- times
        snapshot_date,
        created_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
