with sessions as (

    select * from {{ ref('stg_smartlook__sessions') }}
    where {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'smartlook' as vendor,
        site_key,
        visitor_id as vendor_visitor_id,
        uid_ref as person_ref,
        'identify_uid' as evidence,
        started_at as seen_at_utc
    from sessions
    where uid_ref is not null and visitor_id is not null
    union all by name
    select
        'smartlook' as vendor,
        site_key,
        visitor_id as vendor_visitor_id,
        email_ref as person_ref,
        'identify_email' as evidence,
        started_at as seen_at_utc
    from sessions
    where email_ref is not null and visitor_id is not null

)

select * from mapped
