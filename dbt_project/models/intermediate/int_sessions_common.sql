with sessions as (

    select * from {{ ref('int_sessions_enriched') }}

),

merged as (

    select
        common_session_key,
        vendor,
        site_key,
        min(session_date_local) as session_date_local,
        any_value(vendor_visitor_id) as vendor_visitor_id,
        count(*) as native_session_count,
        -- One native session keeps the vendor's length; several span from the first start to the last end.
        case
            when count(*) = 1 then any_value(duration_seconds)
            else epoch(max(ended_at_utc) - min(started_at_utc))
        end as duration_seconds,
        sum(page_count) as page_count,
        nullif(len(list_distinct(flatten(list(distinct_pages)))), 0) as distinct_page_count,
        bool_or(has_conversion) as has_conversion
    from sessions
    group by common_session_key, vendor, site_key

),

judged as (

    select
        *,
        {{ is_common_bounce('coalesce(distinct_page_count, page_count)', 'has_conversion', 'duration_seconds') }} as is_bounce_common
    from merged

)

select * from judged
