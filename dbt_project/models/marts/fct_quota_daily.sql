with windows as (

    select * from {{ ref('stg_ops__quota_windows') }}

),

-- Of an account's windows the one that came closest to its limit is what held the account back that date.
measured as (

    select
        *,
        request_limit - used as remaining_low,
        row_number() over (
            partition by account, stat_date
            order by used / request_limit desc, window_seconds desc, method_class
        ) = 1 as is_tightest
    from windows

),

final as (

    select
        vendor,
        account,
        stat_date,
        method_class,
        window_seconds,
        is_tightest,
        request_limit,
        used,
        remaining_low,
        used / request_limit as used_share,
        requests,
        answers_429,
        remaining_low = 0 or answers_429 > 0 as was_throttled,
        forecast_exhaustion_at_utc,
        observed_at_utc
    from measured

)

select * from final
