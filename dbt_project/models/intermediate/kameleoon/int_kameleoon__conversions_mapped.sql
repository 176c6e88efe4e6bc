with conversions as (

    select * from {{ ref('stg_kameleoon__conversions') }}
    where {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'kameleoon' as vendor,
        site_key,
        partition_date,
        landed_at,
        concat_ws('-', visitor_code, epoch_ms(visit_started_at), conversion_number) as vendor_conversion_id,
        goal_id as vendor_goal,
        cast(null as varchar) as named_goal,
        visitor_code || '-' || epoch_ms(visit_started_at) as vendor_session_id,
        visitor_code as vendor_visitor_id,
        coalesce(converted_at, visit_started_at) as converted_at_utc,
        visit_started_at as filed_at_utc,
        -- Whether a taken-back amount carries a minus is not documented: the flag alone gives it one.
        {{ amount('revenue') }} as revenue,
        cast(null as varchar) as currency_code,
        is_reversal,
        cast(1 as double) as sample_rate
    from conversions

)

select * from mapped
