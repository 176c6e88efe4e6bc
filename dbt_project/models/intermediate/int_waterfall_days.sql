{{ config(materialized='table') }}

-- One row per vendor with session rows, site and date of the anchor: every number the waterfall starts from.
with span as (

    select max(stat_date) as last_date from {{ ref('fct_daily_traffic') }}

),

traffic as (

    select
        daily.vendor,
        daily.site_key,
        daily.stat_date,
        daily.coverage,
        daily.sessions,
        daily.visitors,
        daily.views,
        daily.is_complete_day
    from {{ ref('fct_daily_traffic') }} as daily
    inner join span on daily.stat_date > span.last_date - {{ var('reconciliation_days') }}
    where daily.basis = 'native'

),

flat_hours as (

    select
        flat.vendor,
        flat.site_key,
        hours.stat_date,
        sum(hours.sessions * {{ share_of_hour('hours.hour_start_utc', 'flat.flat_from_utc', 'flat.flat_until_utc') }}) as lost_sessions,
        sum(hours.views * {{ share_of_hour('hours.hour_start_utc', 'flat.flat_from_utc', 'flat.flat_until_utc') }}) as lost_views
    from {{ ref('int_waterfall_flat_days') }} as flat
    inner join {{ ref('int_measured_hours') }} as hours
        on
            flat.site_key = hours.site_key
            and hours.vendor = '{{ var("reconciliation_anchor") }}'
            and hours.hour_start_utc > flat.flat_from_utc - interval 1 hour
            and hours.hour_start_utc < flat.flat_until_utc
    group by flat.vendor, flat.site_key, hours.stat_date

),

joined as (

    select
        ours.vendor,
        ours.site_key,
        ours.stat_date,
        ours.coverage,
        ours.is_complete_day and anchor.is_complete_day as is_complete,
        measured.vendor is not null as has_sessions,
        {% for metric in ['sessions', 'visitors', 'views'] -%}
        ours.{{ metric }} as {{ metric }},
        anchor.{{ metric }} as anchor_{{ metric }},
        coalesce(measured.native_{{ metric }}, 0) as native_{{ metric }},
        coalesce(measured.ruled_{{ metric }}, 0) as ruled_{{ metric }},
        coalesce(measured.human_{{ metric }}, 0) as human_{{ metric }},
        {% endfor -%}
        least(coalesce(flat_hours.lost_sessions / nullif(anchor.sessions, 0), 0), 1) as flat_share_sessions,
        least(coalesce(flat_hours.lost_views / nullif(anchor.views, 0), 0), 1) as flat_share_views
    from traffic as ours
    inner join traffic as anchor
        on
            ours.site_key = anchor.site_key
            and ours.stat_date = anchor.stat_date
            and anchor.vendor = '{{ var("reconciliation_anchor") }}'
    left join {{ ref('int_measured_days') }} as measured
        on ours.vendor = measured.vendor and ours.site_key = measured.site_key and ours.stat_date = measured.stat_date
    left join flat_hours
        on ours.vendor = flat_hours.vendor and ours.site_key = flat_hours.site_key and ours.stat_date = flat_hours.stat_date
    where ours.vendor <> '{{ var("reconciliation_anchor") }}'

),

final as (

    select
        * exclude (has_sessions),
        flat_share_sessions as flat_share_visitors,
        -- A vendor with session rows and none on this date measured nothing, which is a measurement.
        has_sessions or (
            vendor in ({% for vendor in var('session_vendors') %}'{{ vendor }}'{{ ', ' if not loop.last }}{% endfor %})
        ) as has_session_rows
    from joined

)

select * from final
