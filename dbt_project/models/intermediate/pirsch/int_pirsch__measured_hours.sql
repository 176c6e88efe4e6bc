with hours as (

    select * from {{ ref('stg_pirsch__hourly') }}
    where {{ in_window('partition_date') }}

),

sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

measured as (

    select
        hours.site_key,
        hours.stat_date,
        -- The vendor has 24 hours on every date: on a date of 25 one of them holds two, on a date of 23 one is empty.
        timezone('UTC', timezone(
            {{ anchor_timezone('hours.site_key', 'zones.timezone', 'sites.timezone') }},
            cast(hours.stat_date as timestamp) + to_hours(hours.hour)
        )) as hour_start_utc,
        sum(hours.sessions) as sessions,
        sum(hours.visitors) as visitors,
        sum(hours.views) as views
    from hours
    inner join sites on hours.site_key = sites.site_key
    left join {{ ref('int_anchor_zones') }} as zones on hours.site_key = zones.site_key and hours.stat_date = zones.stat_date
    group by all

)

select * from measured
