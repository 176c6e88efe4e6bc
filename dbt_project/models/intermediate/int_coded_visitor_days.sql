{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'session_date_local'}
    )
}}

with sessions as (

    select * from {{ ref('int_coded_sessions') }}
    where {{ in_window('session_date_local') }}

),

days as (

    select
        site_key,
        visitor_code,
        session_date_local,
        vendor,
        count(*) as session_count
    from sessions
    group by site_key, visitor_code, session_date_local, vendor

)

select * from days
