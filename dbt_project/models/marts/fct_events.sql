{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'session_date_local'}
    )
}}

with events as (

    select * from {{ ref('int_events_unioned') }}
    where {{ in_window('session_date_local') }}

),

final as (

    select
        ---------- ids
        event_key,
        session_key,
        {{ page_key('site_key', url_path('url')) }} as page_key,
        vendor,
        site_key,
        vendor_event_id,
        vendor_visitor_id,

        ---------- times
        session_date_local,
        event_date_local,
        occurred_at_utc,

        ---------- what
        event_type,
        event_name,
        selector,
        url,
        {{ url_path('url') }} as path,

        ---------- measures
        duration_seconds,
        sample_rate
    from events

)

select * from final
