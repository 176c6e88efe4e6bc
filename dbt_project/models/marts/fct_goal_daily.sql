{{ config(materialized='table') }}

with vendor_days as (

    select vendor, site_key, stat_date, visitors, is_complete_day,
        case when starts_with(reason_null, 'all=') then substr(reason_null, 5) end as reason_null
    from {{ ref('fct_daily_traffic') }}
    where basis = 'native'

),

conversions as (

    select
        vendor,
        site_key,
        stat_date,
        goal_key,
        string_agg(distinct vendor_goal, ', ' order by vendor_goal) as vendor_goals,
        count(*) filter (not is_reversal) as conversions,
        count(*) filter (is_reversal) as reversals,
        count(distinct vendor_visitor_id) filter (not is_reversal) as converting_visitors,
        sum(revenue) as revenue,
        min(sample_rate) as sample_rate
    from {{ ref('fct_conversions') }}
    group by vendor, site_key, stat_date, goal_key

),

reported as (

    select * from {{ ref('int_goals_reported') }}

),

-- A goal exists for a vendor's site once it was reached: from then on, and before, a day without it is a zero.
goals as (

    select vendor, site_key, goal_key, false as is_vendor_aggregate, min(vendor_goals) as vendor_goals
    from conversions
    group by vendor, site_key, goal_key
    union all
    select vendor, site_key, goal_key, true as is_vendor_aggregate, min(vendor_goals) as vendor_goals
    from reported
    group by vendor, site_key, goal_key

),

spine as (

    select
        goals.vendor,
        goals.site_key,
        vendor_days.stat_date,
        goals.goal_key,
        goals.is_vendor_aggregate,
        goals.vendor_goals,
        vendor_days.visitors as site_visitors,
        vendor_days.is_complete_day,
        vendor_days.reason_null as day_reason
    from goals
    inner join vendor_days on goals.vendor = vendor_days.vendor and goals.site_key = vendor_days.site_key

),

counted as (

    select
        spine.*,
        case
            when spine.is_vendor_aggregate then reported.conversions
            when spine.day_reason is null then coalesce(conversions.conversions, 0)
        end as conversions,
        case when not spine.is_vendor_aggregate and spine.day_reason is null then coalesce(conversions.reversals, 0) end as reversals,
        case
            when spine.is_vendor_aggregate then reported.converting_visitors
            when spine.day_reason is null then coalesce(conversions.converting_visitors, 0)
        end as converting_visitors,
        reported.views,
        conversions.revenue,
        case
            when spine.is_vendor_aggregate then reported.conversion_rate
            when spine.day_reason is null and spine.site_visitors > 0
                then coalesce(conversions.converting_visitors, 0) / spine.site_visitors
        end as conversion_rate,
        if(spine.is_vendor_aggregate, reported.cr_basis, 'site_visitors') as cr_basis,
        conversions.sample_rate,
        -- One sampled date makes a sampled goal: on a date without conversions nothing tells the rate.
        coalesce(min(conversions.sample_rate) over (partition by spine.vendor, spine.site_key, spine.goal_key), 1) < 1 as is_sampled,
        case
            when spine.is_vendor_aggregate and reported.vendor is null then coalesce(spine.day_reason, 'not_reported')
            when spine.is_vendor_aggregate then reported.reason_null
            else spine.day_reason
        end as reason_null
    from spine
    left join conversions
        on
            not spine.is_vendor_aggregate
            and spine.vendor = conversions.vendor
            and spine.site_key = conversions.site_key
            and spine.stat_date = conversions.stat_date
            and spine.goal_key = conversions.goal_key
    left join reported
        on
            spine.is_vendor_aggregate
            and spine.vendor = reported.vendor
            and spine.site_key = reported.site_key
            and spine.stat_date = reported.stat_date
            and spine.goal_key = reported.goal_key

),

final as (

    select
        vendor,
        site_key,
        stat_date,
        goal_key,
        vendor_goals,
        is_vendor_aggregate,
        cast(conversions as bigint) as conversions,
        cast(reversals as bigint) as reversals,
        cast(converting_visitors as bigint) as converting_visitors,
        cast(views as bigint) as views,
        cast(revenue as decimal(18, 4)) as revenue,
        -- A sample's share of its own visitors is no share of the site's: then there is no rate.
        cast(case when not is_sampled then conversion_rate end as double) as conversion_rate,
        cr_basis,
        sample_rate,
        is_complete_day,
        coalesce(
            reason_null,
            case
                when conversions is null then 'vendor_reports_visitors_only'
                when converting_visitors is null then 'vendor_reports_counts_only'
                when is_sampled then 'conversion_rate=sampled'
            end
        ) as reason_null
    from counted

)

select * from final
