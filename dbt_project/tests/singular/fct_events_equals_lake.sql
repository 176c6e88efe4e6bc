-- Vertical integrity: the events of the window's dates are the lake's, each id once, on the date of its session or else its own.
with lake as (

    select
        'smartlook' as vendor,
        site_key,
        partition_date,
        event_id as vendor_event_id,
        session_id,
        cast(null as timestamp) as session_started_at,
        started_at as occurred_at
    from {{ ref('stg_smartlook__events') }}
    union all
    select 'inspectlet', site_key, partition_date, wid || '-' || sid || '-' || tag_index, wid || '-' || sid, session_started_at, tagged_at
    from {{ ref('stg_inspectlet__session_tags') }}
    union all
    select
        'kameleoon',
        site_key,
        partition_date,
        visitor_code || '-' || epoch_ms(visit_started_at) || '-goal-' || conversion_number,
        visitor_code || '-' || epoch_ms(visit_started_at),
        visit_started_at,
        converted_at
    from {{ ref('stg_kameleoon__conversions') }}
    union all
    select
        'kameleoon',
        site_key,
        partition_date,
        visitor_code || '-' || epoch_ms(started_at) || '-data-' || unnest(generate_series(1, coalesce(len(custom_data_events), 0))),
        visitor_code || '-' || epoch_ms(started_at),
        started_at,
        cast(null as timestamp)
    from {{ ref('stg_kameleoon__visits') }}

),

dated as (

    select
        lake.vendor,
        lake.site_key,
        lake.vendor_event_id,
        coalesce(
            sessions.session_date_local,
            {{ local_date('coalesce(lake.session_started_at, lake.occurred_at)', 'sites.timezone') }}
        ) as session_date_local
    from lake
    inner join {{ ref('dim_site') }} as sites on lake.site_key = sites.site_key
    left join {{ newest_lake_sessions() }} as sessions
        on
            lake.vendor = sessions.vendor
            and lake.site_key = sessions.site_key
            and lake.session_id = sessions.session_id
    where
        {{ in_window('lake.partition_date', 2) }}
        and (
            sessions.session_id is null
            or lake.session_started_at is null
            or lake.partition_date = sessions.partition_date
        )

),

expected as (

    select distinct vendor, site_key, vendor_event_id, session_date_local
    from dated
    where {{ in_window('session_date_local') }}

),

found as (

    select vendor, site_key, vendor_event_id, session_date_local
    from {{ ref('fct_events') }}
    where {{ in_window('session_date_local') }}

)

(select * from found except select * from expected)
union all
(select * from expected except select * from found)
