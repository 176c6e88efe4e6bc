with source as (

    select * from {{ configured_sites() }}

),

renamed as (

    select
        site_key,
        vendor,
        cast(vendor_entity_id as varchar) as vendor_entity_id,
        timezone,
        nullif(regexp_replace(lower(hostname), '^www\.', ''), '') as hostname,
        cast(start_date as date) as start_date,
        is_enabled
    from source

)

select * from renamed
