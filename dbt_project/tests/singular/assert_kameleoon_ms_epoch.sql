-- Kameleoon's times are milliseconds: read as seconds a visit would lie in 1970, read as microseconds far ahead.
select site_key, visitor_code, started_at
from {{ ref('stg_kameleoon__visits') }}
where {{ in_window('partition_date', 1) }} and started_at not between timestamp '1990-01-01' and timestamp '2100-01-01'
