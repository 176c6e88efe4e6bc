{#- A visit makes an audience of the dates after it. -#}
{%- set margin = {'before': 0, 'after': var('audience_days') - 1} -%}

{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date', 'margin': margin}
    )
}}

{%- set audiences = {
    'purchasers': ['purchase_count', 1],
    'signed_up': ['signup_count', 1],
    'frequent_visitors': ['active_days', var('frequent_visitor_days')],
    'rage_clickers': ['rage_click_count', 1],
} %}

with days as (

    select * from {{ ref('int_audience_days') }}

),

-- What is known of a visitor on a date, from it and the dates before it.
looked_back as (

    select
        site_key,
        visitor_code,
        stat_date,
        count(*) over recent as active_days,
        sum(purchase_count) over recent as purchase_count,
        sum(signup_count) over recent as signup_count,
        sum(rage_click_count) over recent as rage_click_count
    from days
    window recent as (
        partition by site_key, visitor_code
        order by stat_date range between interval {{ var('audience_days') - 1 }} days preceding and current row
    )

),

members as (

    {% for audience, (measure, minimum) in audiences.items() %}
    select
        site_key,
        visitor_code,
        stat_date,
        '{{ audience }}' as audience,
        cast({{ measure }} as bigint) as evidence_count
    from looked_back
    where {{ measure }} >= {{ minimum }} and {{ in_replaced_window('stat_date', margin) }}
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select * from members
