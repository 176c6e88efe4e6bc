-- The reported rate is bounces per session (the document's prose says per visitor): warns when an engine divides otherwise.
{{ config(severity='warn') }}

select site_key, stat_date, bounces, sessions, bounce_rate
from {{ ref('stg_pirsch__daily_stats') }}
where {{ in_window('partition_date') }} and sessions > 0 and abs(bounce_rate - bounces / sessions) > 0.0005
