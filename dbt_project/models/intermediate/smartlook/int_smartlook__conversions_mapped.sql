with events as (

    select * from {{ ref('stg_smartlook__events') }}
    where
        event_type = 'custom'
        and {{ is_conversion_name('event_name') }}
        and {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'smartlook' as vendor,
        site_key,
        partition_date,
        landed_at,
        event_id as vendor_conversion_id,
        event_name as vendor_goal,
        {{ conversion_name('event_name') }} as named_goal,
        session_id as vendor_session_id,
        visitor_id as vendor_visitor_id,
        started_at as converted_at_utc,
        started_at as filed_at_utc,
        revenue,
        currency_code,
        false as is_reversal,
        sample_rate
    from events

)

select * from mapped
