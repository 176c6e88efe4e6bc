{%- set margin_days = var('audience_days') + 2 -%}

with sessions as (

    select * from {{ ref('int_coded_sessions') }}

),

told as (

    select
        'smartlook' as vendor,
        site_key,
        session_id as vendor_session_id,
        {{ conversion_name('event_name') }} as conversion_name,
        started_at as converted_at_utc,
        revenue
    from {{ ref('stg_smartlook__events') }}
    where
        event_type = 'custom'
        and {{ is_conversion_name('event_name') }}
        and {{ in_window('partition_date', margin_days) }}
    union all by name
    select
        'inspectlet' as vendor,
        site_key,
        wid || '-' || sid as vendor_session_id,
        {{ conversion_name('tag') }} as conversion_name,
        tagged_at as converted_at_utc,
        revenue
    from {{ ref('stg_inspectlet__session_tags') }}
    where {{ is_conversion_name('tag') }} and {{ in_window('partition_date', margin_days) }}

),

coded as (

    select
        told.vendor,
        told.site_key,
        sessions.visitor_code,
        told.conversion_name,
        told.converted_at_utc,
        told.revenue,
        told.converted_at_utc - lag(told.converted_at_utc) over same_name as gap
    from told
    inner join sessions
        on
            told.vendor = sessions.vendor
            and told.site_key = sessions.site_key
            and told.vendor_session_id = sessions.vendor_session_id
    where told.converted_at_utc is not null
    window same_name as (
        partition by told.site_key, sessions.visitor_code, told.conversion_name order by told.converted_at_utc
    )

),

grouped as (

    select
        *,
        count(*) filter (gap is null or gap > interval {{ var('same_conversion_seconds') }} second) over (
            partition by site_key, visitor_code, conversion_name
            order by converted_at_utc rows between unbounded preceding and current row
        ) as conversion_group
    from coded

),

merged as (

    select
        site_key,
        visitor_code,
        conversion_name,
        min(converted_at_utc) as converted_at_utc,
        max(revenue) as revenue,
        string_agg(distinct vendor, ', ' order by vendor) as seen_by
    from grouped
    group by site_key, visitor_code, conversion_name, conversion_group

),

-- The number counts all of the date, also those Kameleoon saw: what is called the second today is called so tomorrow.
numbered as (

    select
        *,
        cast(converted_at_utc as date) as conversion_date_utc,
        row_number() over (
            partition by site_key, visitor_code, conversion_name, cast(converted_at_utc as date)
            order by converted_at_utc
        ) as conversion_number
    from merged

)

select * from numbered
