{{ config(materialized='table') }}

with unioned as (

    {% for vendor in var('page_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__pages_mapped') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

sessions as (

    select * from {{ ref('int_sessions_enriched') }}
    where {{ in_window('session_date_local') }}

),

sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

-- A session that moved over midnight left its pages in the old partition too: only those of its newest row are its own.
located as (

    select
        sessions.session_key,
        sessions.vendor,
        sessions.site_key,
        sessions.session_date_local,
        sessions.vendor_visitor_id,
        sessions.page_count = 1 as is_bounce_native,
        sites.timezone,
        unioned.page_number,
        unioned.url,
        unioned.title,
        unioned.viewed_at_utc,
        count(*) over whole_session = count(unioned.viewed_at_utc) over whole_session as is_timed
    from unioned
    inner join sessions
        on
            unioned.vendor = sessions.vendor
            and unioned.site_key = sessions.site_key
            and unioned.vendor_session_id = sessions.vendor_session_id
            and unioned.partition_date = sessions.partition_date
    inner join sites on sessions.site_key = sites.site_key
    window whole_session as (partition by sessions.session_key)

),

-- By time where every page has one, else in the vendor's order: a list with holes in its times has no order by time.
numbered as (

    select
        *,
        row_number() over walk as view_number,
        count(*) over (partition by session_key) as view_count,
        lead(viewed_at_utc) over walk as next_viewed_at_utc
    from located
    window walk as (partition by session_key order by if(is_timed, viewed_at_utc, null), page_number)

),

cleaned as (

    select
        *,
        {{ clean_url('url') }} as url_clean,
        {{ local_date('viewed_at_utc', 'timezone') }} as viewed_date_local
    from numbered

),

final as (

    select
        session_key,
        vendor,
        site_key,
        session_date_local,
        vendor_visitor_id,
        is_bounce_native,
        view_number,
        view_number = 1 as is_entry,
        view_number = view_count as is_exit,
        url_clean as url,
        {{ url_path('url_clean') }} as path,
        title,
        viewed_at_utc,
        viewed_date_local,
        case when is_timed then date_diff('millisecond', viewed_at_utc, next_viewed_at_utc) / 1000 end as seconds_on_page
    from cleaned

)

select * from final
