-- Vertical integrity: native Pirsch is what Pirsch said, date by date, never shifted by a time zone.
with reported as (

    select site_key, stat_date, visitors, sessions, views, bounces
    from {{ ref('stg_pirsch__daily_stats') }}
    where {{ in_window('partition_date') }}

),

published as (

    select site_key, stat_date, visitors, sessions, views, bounces
    from {{ ref('fct_daily_traffic') }}
    where vendor = 'pirsch' and basis = 'native' and {{ in_window('stat_date') }} and sessions is not null

)

(select * from published except select * from reported)
union all
(
    select reported.*
    from reported
    inner join {{ ref('int_site_days') }} as days
        on reported.site_key = days.site_key and reported.stat_date = days.stat_date and days.vendor = 'pirsch'
    except
    select * from published
)
