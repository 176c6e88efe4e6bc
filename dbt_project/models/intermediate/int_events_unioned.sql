{{ config(materialized='table') }}

with unioned as (

    {% for vendor in var('event_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__events_mapped') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

newest as (

    select *
    from unioned
    qualify row_number() over (
        partition by vendor, site_key, vendor_event_id
        order by landed_at desc, partition_date desc
    ) = 1

),

sessions as (

    select * from {{ ref('int_sessions_enriched') }}

),

sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

located as (

    select
        {{ surrogate_key(['newest.vendor', 'newest.site_key', 'newest.vendor_event_id']) }} as event_key,
        sessions.session_key,
        newest.vendor,
        newest.site_key,
        newest.vendor_event_id,
        coalesce(newest.vendor_visitor_id, sessions.vendor_visitor_id) as vendor_visitor_id,
        -- What a vendor lists with a session counts on the session's date, as its pages do, however late it was added.
        coalesce(
            sessions.session_date_local,
            {{ local_date('coalesce(newest.session_started_at_utc, newest.occurred_at_utc)', 'sites.timezone') }}
        ) as session_date_local,
        {{ local_date('newest.occurred_at_utc', 'sites.timezone') }} as event_date_local,
        newest.occurred_at_utc,
        newest.event_type,
        newest.event_name,
        newest.selector,
        {{ clean_url('newest.url') }} as url,
        newest.duration_seconds,
        newest.sample_rate
    from newest
    inner join sites on newest.site_key = sites.site_key
    left join sessions
        on
            newest.vendor = sessions.vendor
            and newest.site_key = sessions.site_key
            and newest.vendor_session_id = sessions.vendor_session_id
    -- A session that moved over midnight left its list in the old partition too.
    where
        sessions.session_key is null
        or newest.session_started_at_utc is null
        or sessions.partition_date = newest.partition_date

)

select * from located
where {{ in_window('session_date_local') }}
