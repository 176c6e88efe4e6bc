with traffic as (

    select site_key, stat_date, visitors, sessions, views, is_complete_day
    from {{ ref('fct_daily_traffic') }}
    where vendor = '{{ var("reconciliation_anchor") }}' and basis = 'native'

),

sites as (

    select site_key, any_value(timezone) as site_timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

zoned as (

    select
        traffic.*,
        sites.site_timezone,
        {{ anchor_timezone('traffic.site_key', 'zones.timezone', 'sites.site_timezone') }} as anchor_timezone
    from traffic
    inner join sites on traffic.site_key = sites.site_key
    left join {{ ref('int_anchor_zones') }} as zones on traffic.site_key = zones.site_key and traffic.stat_date = zones.stat_date

),

-- How far the two calendars are apart at noon of the date: whole hours can be shifted, half an hour cannot.
dated as (

    select
        *,
        abs(date_diff(
            'minute',
            timezone(site_timezone, cast(stat_date as timestamp) + interval 12 hour),
            timezone(anchor_timezone, cast(stat_date as timestamp) + interval 12 hour)
        )) as minutes_apart
    from zoned

),

hours as (

    select
        hours.site_key,
        {{ local_date('hours.hour_start_utc', 'sites.site_timezone') }} as stat_date,
        sum(hours.sessions) as sessions,
        sum(hours.views) as views,
        count(*) as hour_count
    from {{ ref('int_measured_hours') }} as hours
    inner join sites on hours.site_key = sites.site_key
    where hours.vendor = '{{ var("reconciliation_anchor") }}'
    group by all

),

judged as (

    select
        dated.*,
        hours.sessions as shifted_sessions,
        hours.views as shifted_views,
        case
            when dated.site_timezone = dated.anchor_timezone then 'site'
            when dated.minutes_apart % 60 <> 0 then 'vendor_tz'
            -- A date of the site takes hours from two dates of the anchor: both must be there.
            when coalesce(hours.hour_count, 0) >= 22 then 'shifted_hours'
            else 'vendor_tz'
        end as day_basis
    from dated
    left join hours on dated.site_key = hours.site_key and dated.stat_date = hours.stat_date

),

moved as (

    select
        site_key,
        stat_date,
        day_basis,
        is_complete_day,
        if(day_basis = 'shifted_hours', shifted_sessions, sessions) as sessions,
        if(day_basis = 'shifted_hours', shifted_views, views) as views,
        -- Visitors of hours do not add up: the date's own number is moved as its sessions are.
        if(day_basis = 'shifted_hours', round(visitors * shifted_sessions / nullif(sessions, 0)), visitors) as visitors
    from judged

),

final as (

    select
        site_key,
        stat_date,
        day_basis,
        is_complete_day,
        cast(sessions as bigint) as sessions,
        cast(views as bigint) as views,
        cast(visitors as bigint) as visitors
    from moved

)

select * from final
