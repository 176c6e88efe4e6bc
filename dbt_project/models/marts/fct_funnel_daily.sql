{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with unioned as (

    {% for vendor in var('funnel_report_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__funnels_reported') }}
    union all by name
    {% endfor %}
    select
        vendor,
        site_key,
        funnel_key,
        funnel_key as vendor_funnel,
        stat_date,
        step_number,
        step_key,
        visitors,
        cast(null as double) as percent_from_previous_reported,
        'first_step_visitors' as cr_basis,
        'site' as date_basis,
        'pages' as funnel_source
    from {{ ref('int_funnel_steps_derived') }}

),

compared as (

    select
        *,
        lag(visitors) over walk as previous_visitors,
        first_value(visitors) over walk as first_visitors,
        count(*) over (partition by vendor, site_key, funnel_key, stat_date) as step_count
    from unioned
    where {{ in_window('stat_date') }}
    window walk as (partition by vendor, site_key, funnel_key, stat_date order by step_number)

),

final as (

    select
        vendor,
        site_key,
        funnel_key,
        vendor_funnel,
        stat_date,
        cast(step_number as integer) as step_number,
        cast(step_count as integer) as step_count,
        step_key,
        cast(visitors as bigint) as visitors,
        cast(case when step_number > 1 then previous_visitors - visitors end as bigint) as dropped_visitors,
        case
            when step_number = 1 and visitors > 0 then 100.0
            when previous_visitors > 0 then 100.0 * visitors / previous_visitors
        end as percent_from_previous,
        percent_from_previous_reported,
        case when first_visitors > 0 then 100.0 * visitors / first_visitors end as percent_from_first,
        cr_basis,
        date_basis,
        funnel_source,
        case
            when visitors is null then 'not_reported'
            when step_number = 1 and visitors = 0 then 'nobody_came'
            when step_number > 1 and previous_visitors = 0 then 'nobody_at_previous_step'
        end as reason_null
    from compared

)

select * from final
