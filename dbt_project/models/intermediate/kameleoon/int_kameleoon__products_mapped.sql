with counters as (

    select * from {{ ref('stg_kameleoon__product_counters') }}
    where {{ in_window('partition_date', 1) }}

),

mapped as (

    select
        'kameleoon' as vendor,
        site_key,
        stat_date,
        ean as sku,
        views,
        add_to_cart_quantity,
        bought_quantity,
        'utc' as date_basis
    from counters

)

select * from mapped
