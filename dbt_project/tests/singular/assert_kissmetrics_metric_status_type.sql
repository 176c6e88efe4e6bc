-- status is documented as boolean and sampled as `pending`: it stays text, and a word nobody has seen yet warns.
{{ config(severity='warn') }}

select site_key, snapshot_date, metric_id, status
from {{ ref('stg_kissmetrics__metrics') }}
where
    {{ in_window('partition_date', 1) }}
    and (typeof(status) <> 'VARCHAR' or status not in ('true', 'false', 'pending', 'active', 'paused', 'complete', 'failed'))
