with goals as (

    select
        site_key,
        stat_date,
        vendor_goal,
        'goal_' || {{ own_goal_key('vendor_goal') }} as funnel_key,
        {{ own_goal_key('vendor_goal') }} as goal_name,
        converting_visitors
    from {{ ref('int_pirsch__goals_reported') }}
    where converting_visitors is not null

),

totals as (

    select site_key, stat_date, visitors
    from {{ ref('stg_pirsch__daily_stats') }}
    where visitors is not null and {{ in_window('partition_date', 1) }}

),

-- The vendor has goals and no funnels: everybody who came, and who of them reached the goal.
reported as (

    select
        'pirsch' as vendor,
        goals.site_key,
        goals.funnel_key,
        goals.vendor_goal as vendor_funnel,
        goals.stat_date,
        steps.step_number,
        if(steps.step_number = 1, 'site', goals.goal_name) as step_key,
        if(steps.step_number = 1, totals.visitors, goals.converting_visitors) as visitors,
        cast(null as double) as percent_from_previous_reported,
        'site_visitors' as cr_basis,
        'site' as date_basis,
        'vendor' as funnel_source
    from goals
    inner join totals on goals.site_key = totals.site_key and goals.stat_date = totals.stat_date
    cross join (values (1), (2)) as steps (step_number)
    qualify row_number() over (
        partition by goals.site_key, goals.stat_date, goals.funnel_key, steps.step_number order by goals.vendor_goal
    ) = 1

)

select * from reported
