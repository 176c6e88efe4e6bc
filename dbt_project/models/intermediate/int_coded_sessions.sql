{%- set margin_days = var('audience_days') + 2 -%}

with smartlook as (

    select
        'smartlook' as vendor,
        site_key,
        partition_date,
        session_id as vendor_session_id,
        kameleoon_visitor_code as visitor_code,
        started_at as started_at_utc
    from {{ ref('stg_smartlook__sessions') }}
    where {{ in_window('partition_date', margin_days) }}

),

inspectlet as (

    select
        'inspectlet' as vendor,
        site_key,
        partition_date,
        wid || '-' || sid as vendor_session_id,
        max(kameleoon_visitor_code) as visitor_code,
        min(session_started_at) as started_at_utc
    from {{ ref('stg_inspectlet__session_tags') }}
    where kameleoon_visitor_code is not null and {{ in_window('partition_date', margin_days) }}
    group by site_key, partition_date, wid, sid

),

kameleoon as (

    select
        'kameleoon' as vendor,
        site_key,
        partition_date,
        visitor_code || '-' || epoch_ms(started_at) as vendor_session_id,
        visitor_code,
        started_at as started_at_utc
    from {{ ref('stg_kameleoon__visits') }}
    where {{ in_window('partition_date', margin_days) }}

),

unioned as (

    select * from smartlook
    union all by name
    select * from inspectlet
    union all by name
    select * from kameleoon

),

sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

located as (

    select
        unioned.*,
        {{ local_date('unioned.started_at_utc', 'sites.timezone') }} as session_date_local
    from unioned
    inner join sites on unioned.site_key = sites.site_key
    where {{ is_visitor_code('unioned.visitor_code') }}
    qualify row_number() over (
        partition by unioned.vendor, unioned.site_key, unioned.vendor_session_id
        order by unioned.partition_date desc
    ) = 1

)

select * from located
