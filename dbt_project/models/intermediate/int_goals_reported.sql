{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with unioned as (

    {% for vendor in var('goal_report_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__goals_reported') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

named as (

    select
        unioned.vendor,
        unioned.site_key,
        unioned.stat_date,
        unioned.vendor_goal,
        coalesce(goals.goal_key, {{ own_goal_key('unioned.vendor_goal') }}) as goal_key,
        unioned.conversions,
        unioned.converting_visitors,
        unioned.views,
        unioned.conversion_rate,
        unioned.cr_basis,
        unioned.reason_null
    from unioned
    left join {{ ref('vendor_goals') }} as goals
        on
            unioned.vendor = goals.vendor
            and lower(unioned.vendor_goal) = goals.vendor_goal
            and unioned.site_key = coalesce(goals.site_key, unioned.site_key)
    qualify row_number() over (
        partition by unioned.vendor, unioned.site_key, unioned.stat_date, unioned.vendor_goal
        order by goals.site_key nulls last, goals.goal_key
    ) = 1

),

-- Two names of one goal: their conversions add up, their visitors and views do not.
merged as (

    select
        vendor,
        site_key,
        stat_date,
        goal_key,
        string_agg(vendor_goal, ', ' order by vendor_goal) as vendor_goals,
        cast(sum(conversions) as bigint) as conversions,
        case when count(*) = 1 then any_value(converting_visitors) end as converting_visitors,
        case when count(*) = 1 then any_value(views) end as views,
        case when count(*) = 1 then any_value(conversion_rate) end as conversion_rate,
        case when count(*) = 1 then any_value(cr_basis) end as cr_basis,
        case when count(*) > 1 then 'visitors_not_additive' else any_value(reason_null) end as reason_null
    from named
    group by vendor, site_key, stat_date, goal_key

)

select * from merged
where {{ in_window('stat_date') }}
