-- Vertical integrity: what running sums say is what counting the sessions of a window says, on one date in five.
{{ config(tags=['thorough']) }}

with windows as (

    select * from {{ ref('fct_visitor_windows') }}
    where day(stat_date) % 5 = 0 and {{ in_window('stat_date', 0, 30) }}

),

counted as (

    select
        windows.vendor,
        windows.site_key,
        windows.stat_date,
        count(distinct sessions.vendor_visitor_id) filter (sessions.session_date_local > windows.stat_date - 7) as visitors_7d,
        count(distinct sessions.vendor_visitor_id) filter (sessions.session_date_local > windows.stat_date - 28) as visitors_28d,
        count(distinct sessions.vendor_visitor_id)
            filter (sessions.session_date_local >= date_trunc('month', windows.stat_date)) as visitors_month
    from windows
    left join {{ ref('fct_sessions') }} as sessions
        on
            windows.vendor = sessions.vendor
            and windows.site_key = sessions.site_key
            and sessions.session_date_local between windows.stat_date - 31 and windows.stat_date
    group by windows.vendor, windows.site_key, windows.stat_date

)

select windows.vendor, windows.site_key, windows.stat_date
from windows
inner join counted using (vendor, site_key, stat_date)
where
    windows.visitors_7d <> counted.visitors_7d
    or windows.visitors_28d <> counted.visitors_28d
    or windows.visitors_month <> counted.visitors_month
