-- Vertical integrity: where a session vendor's native row speaks, its sessions are the rows of fct_sessions, date by date.
with counted as (

    select vendor, site_key, session_date_local as stat_date, count(*) as session_count
    from {{ ref('fct_sessions') }}
    where {{ in_window('session_date_local') }}
    group by all

)

select traffic.vendor, traffic.site_key, traffic.stat_date, traffic.sessions, counted.session_count
from {{ ref('fct_daily_traffic') }} as traffic
inner join {{ ref('dim_vendor') }} as vendors on traffic.vendor = vendors.vendor
left join counted
    on
        traffic.vendor = counted.vendor
        and traffic.site_key = counted.site_key
        and traffic.stat_date = counted.stat_date
where
    traffic.basis = 'native'
    and {{ in_window('traffic.stat_date') }}
    and vendors.has_session_rows
    and traffic.sessions is not null
    and traffic.sessions <> coalesce(counted.session_count, 0)
