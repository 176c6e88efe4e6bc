with visits as (

    select * from {{ ref('stg_kameleoon__visits') }}
    where login_ref is not null and {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'kameleoon' as vendor,
        site_key,
        visitor_code as vendor_visitor_id,
        login_ref as person_ref,
        'mapping_value' as evidence,
        started_at as seen_at_utc
    from visits

)

select * from mapped
