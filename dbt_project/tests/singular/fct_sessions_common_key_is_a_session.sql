-- Every common session is named after one of the vendor's own sessions. Warns: its first session may be older than the history.
{{ config(severity='warn') }}

select common_session_key
from {{ ref('fct_sessions') }}
where {{ in_window('session_date_local') }}
except
-- A common session spans at most a day: its first session began on this date or the one before.
select session_key
from {{ ref('fct_sessions') }}
where {{ in_window('session_date_local', 2) }}
