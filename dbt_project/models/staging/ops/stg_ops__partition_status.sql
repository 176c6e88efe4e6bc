with source as (

    select * from {{ source('ops', 'partition_status') }}

),

renamed as (

    select
        vendor,
        table_name,
        site_key,
        partition_date,
        status,
        reason,
        row_count,
        requests,
        batch_days,
        landed_at as landed_at_utc,
        resume_at as resume_at_utc,
        observed_at as observed_at_utc
    from source

)

select * from renamed
