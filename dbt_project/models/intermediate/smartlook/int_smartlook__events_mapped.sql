with events as (

    select * from {{ ref('stg_smartlook__events') }}
    where {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'smartlook' as vendor,
        site_key,
        partition_date,
        landed_at,
        event_id as vendor_event_id,
        session_id as vendor_session_id,
        visitor_id as vendor_visitor_id,
        cast(null as timestamp) as session_started_at_utc,
        started_at as occurred_at_utc,
        event_type,
        event_name,
        selector,
        page_url as url,
        duration_seconds,
        sample_rate
    from events

)

select * from mapped
