{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'filed_date_local'}
    )
}}

with unioned as (

    {% for vendor in var('conversion_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__conversions_mapped') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

goals as (

    select * from {{ ref('vendor_goals') }}

),

named as (

    select
        {{ surrogate_key(['unioned.vendor', 'unioned.site_key', 'unioned.vendor_conversion_id']) }} as conversion_key,
        unioned.vendor,
        unioned.site_key,
        unioned.vendor_conversion_id,
        coalesce(goals.goal_key, unioned.named_goal, {{ own_goal_key('unioned.vendor_goal') }}) as goal_key,
        unioned.vendor_goal,
        {{ surrogate_key(['unioned.vendor', 'unioned.site_key', 'unioned.vendor_session_id']) }} as session_key,
        unioned.vendor_visitor_id,
        unioned.converted_at_utc,
        {{ local_date('unioned.converted_at_utc', 'sites.timezone') }} as stat_date,
        {{ local_date('unioned.filed_at_utc', 'sites.timezone') }} as filed_date_local,
        unioned.partition_date,
        cast(if(unioned.is_reversal, -abs(unioned.revenue), unioned.revenue) as decimal(18, 4)) as revenue,
        unioned.currency_code,
        unioned.is_reversal,
        unioned.sample_rate
    from unioned
    inner join sites on unioned.site_key = sites.site_key
    left join goals
        on
            unioned.vendor = goals.vendor
            and lower(unioned.vendor_goal) = goals.vendor_goal
            and unioned.site_key = coalesce(goals.site_key, unioned.site_key)
    -- A goal named for the site goes before one named for all; a conversion that moved over midnight is told once.
    qualify row_number() over (
        partition by unioned.vendor, unioned.site_key, unioned.vendor_conversion_id
        order by unioned.landed_at desc, unioned.partition_date desc, goals.site_key nulls last, goals.goal_key
    ) = 1

)

select * from named
where {{ in_window('filed_date_local') }}
