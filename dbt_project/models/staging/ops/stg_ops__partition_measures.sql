with source as (

    select * from {{ source('ops', 'partition_measures') }}

),

renamed as (

    select
        vendor,
        table_name,
        site_key,
        partition_date,
        day_basis,
        batch,
        asked_at as asked_at_utc,
        metric,
        value
    from source

)

select * from renamed
