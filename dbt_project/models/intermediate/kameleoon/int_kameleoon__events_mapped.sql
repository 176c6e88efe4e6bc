with visits as (

    select * from {{ ref('stg_kameleoon__visits') }}
    where {{ in_window('partition_date', 2) }}

),

conversions as (

    select * from {{ ref('stg_kameleoon__conversions') }}
    where {{ in_window('partition_date', 2) }}

),

custom_data as (

    select
        site_key,
        partition_date,
        landed_at,
        visitor_code,
        started_at as visit_started_at,
        unnest(custom_data_events) as custom,
        generate_subscripts(custom_data_events, 1) as event_number
    from visits

),

listed as (

    select
        site_key,
        partition_date,
        landed_at,
        visitor_code,
        visit_started_at,
        'custom_data' as event_type,
        event_number,
        custom.set_at as occurred_at_utc,
        'custom data ' || custom.data_index as event_name
    from custom_data

    union all

    select
        site_key,
        partition_date,
        landed_at,
        visitor_code,
        visit_started_at,
        if(is_reversal, 'reversal', 'conversion') as event_type,
        conversion_number as event_number,
        converted_at as occurred_at_utc,
        'goal ' || goal_id || if(is_reversal, ' reversed', '') as event_name
    from conversions

),

mapped as (

    select
        'kameleoon' as vendor,
        site_key,
        partition_date,
        landed_at,
        concat_ws('-', visitor_code, epoch_ms(visit_started_at), if(event_type = 'custom_data', 'data', 'goal'), event_number)
            as vendor_event_id,
        visitor_code || '-' || epoch_ms(visit_started_at) as vendor_session_id,
        visitor_code as vendor_visitor_id,
        visit_started_at as session_started_at_utc,
        occurred_at_utc,
        event_type,
        event_name,
        cast(null as varchar) as selector,
        cast(null as varchar) as url,
        cast(null as double) as duration_seconds,
        cast(1 as double) as sample_rate
    from listed

)

select * from mapped
