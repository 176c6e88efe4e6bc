with source as (

    select * from {{ source('ops', 'quota_windows') }}

),

renamed as (

    select
        date_utc as stat_date,
        vendor,
        account,
        method_class,
        window_seconds,
        request_limit,
        used,
        requests,
        answers_429,
        observed_at as observed_at_utc,
        forecast_exhaustion_at as forecast_exhaustion_at_utc
    from source

)

select * from renamed
