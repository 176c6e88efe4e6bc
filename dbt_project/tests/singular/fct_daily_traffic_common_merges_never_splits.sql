-- A common session starts with a vendor session, so a date has at most as many of them.
select common.*
from {{ ref('fct_daily_traffic') }} as common
inner join {{ ref('fct_daily_traffic') }} as native using (vendor, site_key, stat_date)
where {{ in_window('common.stat_date') }} and common.basis = 'common' and native.basis = 'native' and common.sessions > native.sessions
