-- Vertical integrity: per session vendor, site and local date, pages and distinct visitors of fct_sessions are the lake's.
with lake as (

    select
        vendor,
        site_key,
        session_date_local,
        count(distinct visitor) as visitor_count,
        count(page_count) as counted_sessions,
        coalesce(sum(page_count), 0) as page_count
    from {{ newest_lake_sessions() }}
    group by vendor, site_key, session_date_local

),

found as (

    select
        vendor,
        site_key,
        session_date_local,
        count(distinct vendor_visitor_id) as visitor_count,
        count(page_count) as counted_sessions,
        coalesce(sum(page_count), 0) as page_count
    from {{ ref('fct_sessions') }}
    where {{ in_window('session_date_local') }}
    group by vendor, site_key, session_date_local

)

(select * from found except select * from lake)
union all
(select * from lake where {{ in_window('session_date_local') }} except select * from found)
