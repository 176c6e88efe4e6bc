with sessions as (

    select * from {{ ref('stg_smartlook__sessions') }}
    where link_ref is not null and {{ in_window('partition_date', 2) }}

),

events as (

    select
        site_key,
        session_id,
        count(*) filter (event_type = 'error') as error_count,
        count(*) filter (event_type = 'rage_click') as rage_click_count
    from {{ ref('stg_smartlook__events') }}
    where session_id is not null and {{ in_window('partition_date', 2) }}
    group by site_key, session_id

),

signals as (

    select
        'smartlook' as vendor,
        sessions.site_key,
        sessions.partition_date,
        sessions.session_id as vendor_session_id,
        sessions.link_ref,
        sessions.link_host,
        -- Events are read for a sample of visitors: without one nothing is known.
        events.error_count,
        events.rage_click_count
    from sessions
    left join events on sessions.site_key = events.site_key and sessions.session_id = events.session_id

)

select * from signals
