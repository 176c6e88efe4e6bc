with source as (

    select * from {{ source('ops', 'http_requests') }}

),

renamed as (

    select
        hour_at as request_hour_at_utc,
        cast(hour_at as date) as stat_date,
        vendor,
        account,
        method_class,
        endpoint,
        requests,
        answers_429,
        received_bytes
    from source

)

select * from renamed
