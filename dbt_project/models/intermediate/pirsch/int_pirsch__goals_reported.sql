with goals as (

    select * from {{ ref('stg_pirsch__goals') }}
    where {{ in_window('partition_date', 1) }}

),

reported as (

    select
        'pirsch' as vendor,
        site_key,
        stat_date,
        coalesce(name, goal_id) as vendor_goal,
        cast(null as bigint) as conversions,
        visitors as converting_visitors,
        views,
        cr as conversion_rate,
        'site_visitors' as cr_basis,
        cast(null as varchar) as reason_null
    from goals
    -- Two goals of one name cannot be told apart by people either: the one defined first is the goal.
    qualify row_number() over (partition by site_key, stat_date, lower(coalesce(name, goal_id)) order by defined_at nulls last, goal_id) = 1

)

select * from reported
