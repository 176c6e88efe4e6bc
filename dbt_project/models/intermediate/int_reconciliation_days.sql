{{ config(materialized='table') }}

{%- set metrics = ['visitors', 'sessions', 'views'] %}

with span as (

    select max(stat_date) as last_date from {{ ref('fct_daily_traffic') }}

),

traffic as (

    select daily.*
    from {{ ref('fct_daily_traffic') }} as daily
    inner join span on daily.stat_date > span.last_date - {{ var('reconciliation_days') }}
    where daily.basis = 'native' and daily.vendor <> '{{ var("reconciliation_anchor") }}'

),

long as (

    {% for metric in metrics %}
    select
        site_key,
        stat_date,
        '{{ metric }}' as metric,
        vendor,
        {{ metric }} as value,
        nullif(coalesce(
            nullif(regexp_extract(reason_null, '^all=([a-z_0-9]+)', 1), ''),
            nullif(regexp_extract(reason_null, '\b{{ metric }}=([a-z_0-9]+)', 1), '')
        ), '') as value_reason,
        is_complete_day,
        coverage
    from traffic
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

anchor as (

    {% for metric in metrics %}
    select site_key, stat_date, '{{ metric }}' as metric, {{ metric }} as anchor_value, day_basis, is_complete_day
    from {{ ref('int_anchor_days') }}
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

offered as (

    select metric, vendor, is_offered
    from {{ ref('metric_definitions') }}
    where basis = 'native'

),

joined as (

    select
        long.*,
        anchor.anchor_value,
        anchor.day_basis,
        coalesce(anchor.is_complete_day, false) as is_anchor_complete,
        coalesce(offered.is_offered, true) as is_offered
    from long
    left join anchor on long.site_key = anchor.site_key and long.stat_date = anchor.stat_date and long.metric = anchor.metric
    left join offered on long.metric = offered.metric and long.vendor = offered.vendor

),

judged as (

    select
        *,
        case
            when not is_offered then coalesce(value_reason, 'not_offered')
            when value is null then coalesce(value_reason, 'not_reported')
            when not is_complete_day then 'incomplete_partition'
            when anchor_value is null or not is_anchor_complete then 'anchor_missing'
            when anchor_value = 0 then 'anchor_zero'
            when day_basis = 'vendor_tz' then 'day_basis_vendor_tz'
            when coverage = 'panel' and value < {{ var('panel_coverage') }} * anchor_value then 'panel'
        end as reason
    from joined

),

final as (

    select
        site_key,
        stat_date,
        metric,
        vendor,
        value,
        anchor_value,
        coalesce(day_basis, 'site') as day_basis,
        is_offered,
        reason,
        reason is null as is_comparable
    from judged

)

select * from final
