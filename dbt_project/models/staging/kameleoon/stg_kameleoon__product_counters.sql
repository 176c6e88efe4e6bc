with source as (

    select * from {{ lake_source('kameleoon', 'product_counters') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        ean,

        ---------- numbers
        views,
        add_to_cart_quantity,
        bought_quantity,

        ---------- times
        stat_date,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
