with tags as (

    select * from {{ ref('stg_inspectlet__session_tags') }}
    where {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'inspectlet' as vendor,
        site_key,
        partition_date,
        landed_at,
        wid || '-' || sid || '-' || tag_index as vendor_event_id,
        wid || '-' || sid as vendor_session_id,
        cast(null as varchar) as vendor_visitor_id,
        session_started_at as session_started_at_utc,
        tagged_at as occurred_at_utc,
        'tag' as event_type,
        tag as event_name,
        cast(null as varchar) as selector,
        cast(null as varchar) as url,
        cast(null as double) as duration_seconds,
        cast(1 as double) as sample_rate
    from tags

)

select * from mapped
