with pages as (

    select * from {{ ref('stg_inspectlet__session_pages') }}
    where {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'inspectlet' as vendor,
        site_key,
        partition_date,
        wid || '-' || sid as vendor_session_id,
        page_index as page_number,
        page_url as url,
        nullif(trim(page_title), '') as title,
        opened_at as viewed_at_utc
    from pages

)

select * from mapped
