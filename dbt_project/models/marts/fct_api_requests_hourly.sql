with requests as (

    select * from {{ ref('stg_ops__http_requests') }}

),

final as (

    select
        vendor,
        account,
        stat_date,
        request_hour_at_utc,
        method_class,
        endpoint,
        requests,
        answers_429,
        received_bytes
    from requests

)

select * from final
