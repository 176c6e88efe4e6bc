with pages as (

    select * from {{ ref('stg_kameleoon__visit_pages') }}
    where {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'kameleoon' as vendor,
        site_key,
        partition_date,
        visitor_code || '-' || epoch_ms(visit_started_at) as vendor_session_id,
        page_number,
        url,
        nullif(trim(title), '') as title,
        viewed_at as viewed_at_utc
    from pages

)

select * from mapped
