-- Vertical integrity: per session vendor, site and local date, the views are the lake's page rows of the newest row of each session.
with lake as (

    select
        sessions.vendor,
        sessions.site_key,
        sessions.session_date_local,
        count(*) as view_count,
        count(pages.url) as url_count,
        count(distinct pages.session_id) as session_count
    from {{ lake_pages() }} as pages
    inner join {{ newest_lake_sessions() }} as sessions
        on
            pages.vendor = sessions.vendor
            and pages.site_key = sessions.site_key
            and pages.session_id = sessions.session_id
            and pages.partition_date = sessions.partition_date
    where {{ in_window('pages.partition_date', 2) }}
    group by sessions.vendor, sessions.site_key, sessions.session_date_local

),

found as (

    select
        vendor,
        site_key,
        session_date_local,
        count(*) as view_count,
        count(url) as url_count,
        count(distinct session_key) as session_count
    from {{ ref('fct_page_views') }}
    where {{ in_window('session_date_local') }}
    group by vendor, site_key, session_date_local

)

(select * from found except select * from lake)
union all
(select * from lake where {{ in_window('session_date_local') }} except select * from found)
