with funnels as (

    select * from {{ ref('stg_smartlook__funnels') }}
    where {{ in_window('partition_date', 1) }}

),

names as (

    select vendor_funnel, funnel_key
    from {{ ref('vendor_funnels') }}
    where vendor = 'smartlook'

),

reported as (

    select
        'smartlook' as vendor,
        funnels.site_key,
        coalesce(names.funnel_key, {{ own_goal_key('coalesce(funnels.funnel_name, funnels.funnel_id)') }}) as funnel_key,
        coalesce(funnels.funnel_name, funnels.funnel_id) as vendor_funnel,
        funnels.stat_date,
        funnels.step_index as step_number,
        {{ own_goal_key('coalesce(funnels.event_name, funnels.event_id)') }} as step_key,
        funnels.visitors_count as visitors,
        funnels.percent_from_previous_step as percent_from_previous_reported,
        'first_step_visitors' as cr_basis,
        'utc' as date_basis,
        'vendor' as funnel_source
    from funnels
    left join names on lower(funnels.funnel_name) = names.vendor_funnel
    -- Two funnels of one key (copied in the dashboard): the one changed last is shown, whole.
    qualify dense_rank() over (
        partition by funnels.site_key, funnels.stat_date, coalesce(names.funnel_key, lower(funnels.funnel_name), funnels.funnel_id)
        order by funnels.updated_at desc nulls last, funnels.funnel_id
    ) = 1

)

select * from reported
