with sessions as (

    select
        site_key,
        partition_date,
        wid,
        sid,
        uid,
        started_at
    from {{ ref('stg_inspectlet__sessions') }}
    where {{ in_window('partition_date', 2) }}

),

pages as (

    select * from {{ ref('stg_inspectlet__session_pages') }}
    where {{ in_window('partition_date', 2) }}

),

timed as (

    select
        'inspectlet' as vendor,
        pages.site_key,
        coalesce(cast(sessions.uid as varchar), pages.wid || '-' || pages.sid) as vendor_visitor_id,
        sessions.started_at as session_started_at_utc,
        pages.opened_at as viewed_at_utc,
        pages.page_index as page_number,
        {{ url_path(url_plain('pages.page_url')) }} as page_path
    from pages
    inner join sessions using (site_key, partition_date, wid, sid)
    where pages.opened_at is not null

)

select * from timed
