-- Every common session is named after one of the vendor's own sessions. Warns: its first session may be older than the history.
{{ config(severity='warn') }}

select common_session_key from {{ ref('fct_sessions') }}
except
select session_key from {{ ref('fct_sessions') }}
