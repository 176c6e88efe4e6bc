-- The document says seconds, its sample is milliseconds: a day's sessions vote on the unit together, and a day that disagrees with itself warns.
{{ config(severity='warn') }}

select site_key, partition_date, vote_count, share_milliseconds
from {{ ref('int_inspectlet__duration_units') }}
where {{ in_window('partition_date', 1) }} and partition_unit = 'mixed'
