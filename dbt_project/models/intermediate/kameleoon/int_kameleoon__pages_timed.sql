with pages as (

    select * from {{ ref('stg_kameleoon__visit_pages') }}
    where {{ in_window('partition_date', 2) }}

),

timed as (

    select
        'kameleoon' as vendor,
        site_key,
        visitor_code as vendor_visitor_id,
        visit_started_at as session_started_at_utc,
        viewed_at as viewed_at_utc,
        page_number,
        {{ url_path(url_plain('url')) }} as page_path
    from pages
    where viewed_at is not null

)

select * from timed
