-- A page was opened within its session, give or take a minute of the vendor's clocks. Warns: both times are the vendor's.
{{ config(severity='warn') }}

select views.page_view_key, views.viewed_at_utc, sessions.started_at_utc, sessions.ended_at_utc
from {{ ref('fct_page_views') }} as views
inner join {{ ref('fct_sessions') }} as sessions on views.session_key = sessions.session_key
where
    {{ in_window('views.session_date_local') }}
    and {{ in_window('sessions.session_date_local') }}
    and (
        views.viewed_at_utc < sessions.started_at_utc - interval 60 second
        or views.viewed_at_utc > sessions.ended_at_utc + interval 60 second
    )
