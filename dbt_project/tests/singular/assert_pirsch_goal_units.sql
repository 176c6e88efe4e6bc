-- cr is a fraction of the day's visitors and cr_goal a percentage; path_pattern is the path, pattern the expression made of it. Warns.
{{ config(meta={'dagster': {'ref': {'name': 'stg_pirsch__goals'}}}, severity='warn') }}

select goals.site_key, goals.stat_date, goals.goal_id, goals.cr, goals.cr_goal_percent, goals.path_pattern, goals.pattern
from {{ ref('stg_pirsch__goals') }} as goals
inner join {{ ref('stg_pirsch__daily_stats') }} as totals
    on goals.site_key = totals.site_key and goals.stat_date = totals.stat_date
where
    {{ in_window('goals.partition_date') }}
    and {{ in_window('totals.partition_date') }}
    and (
        -- A percentage would be a hundred times the share of the day's visitors.
        abs(goals.cr - goals.visitors / totals.visitors) > abs(goals.cr / 100 - goals.visitors / totals.visitors)
        or goals.cr > 1
        or goals.cr_goal_percent > 100
        or starts_with(goals.path_pattern, '^')
        or starts_with(goals.path_pattern, '(?')
        or (starts_with(goals.pattern, '/') and goals.event_name is null)
    )
