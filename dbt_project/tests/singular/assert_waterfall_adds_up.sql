-- Anchor plus all effects is the vendor's number, exactly, and every date has all eight steps.
select site_key, stat_date, metric, vendor, sum(effect) as effects, any_value(gap) as gap, count(*) as steps
from {{ ref('fct_reconciliation_waterfall') }}
group by site_key, stat_date, metric, vendor
having sum(effect) <> any_value(gap) or count(*) <> 8
