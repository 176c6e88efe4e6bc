with sessions as (

    select * from {{ ref('stg_smartlook__sessions') }}
    where {{ in_window('partition_date', 2) }}

),

listed as (

    select
        site_key,
        partition_date,
        session_id,
        unnest(page_urls) as url,
        generate_subscripts(page_urls, 1) as page_number
    from sessions

),

mapped as (

    select
        'smartlook' as vendor,
        site_key,
        partition_date,
        session_id as vendor_session_id,
        page_number,
        url,
        cast(null as varchar) as title,
        cast(null as timestamp) as viewed_at_utc
    from listed

)

select * from mapped
