-- Pirsch's day is a calendar date of the domain: the partition it was asked for, whatever the time zone.
select site_key, partition_date, stat_date
from {{ ref('stg_pirsch__daily_stats') }}
where {{ in_window('partition_date', 1) }} and stat_date <> partition_date
