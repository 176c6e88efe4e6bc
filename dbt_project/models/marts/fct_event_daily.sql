{#- What a counter tells of a date depends on both snapshots around it. -#}
{%- set margin_dates = var('counter_known_dates') - 1 -%}
{%- set margin = {'before': margin_dates, 'after': margin_dates, 'rows': "day_basis = 'snapshot'"} -%}

{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date', 'margin': margin}
    )
}}

{%- set counted_vendors = var('event_vendors') | reject('in', var('event_list_vendors')) | list %}

with listed as (

    {% for vendor in var('event_list_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__event_lists') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

-- Vendors without daily figures of their own: their single events, on the date of the session they belong to.
counted as (

    select
        vendor,
        site_key,
        session_date_local as stat_date,
        event_name as event_id,
        event_type as event_category,
        event_name,
        count(*) as occurrences,
        nullif(count(distinct vendor_visitor_id), 0) as unique_visitors,
        cast(null as varchar) as occurrences_reason,
        'no_visitor_id' as visitors_reason,
        'derived' as source,
        'site' as day_basis,
        false as is_list_cut,
        cast(null as boolean) as is_delta_bounded
    from {{ ref('int_events_unioned') }}
    where vendor in ({% for vendor in counted_vendors %}'{{ vendor }}'{{ ', ' if not loop.last }}{% endfor %})
    group by vendor, site_key, session_date_local, event_type, event_name

),

unioned as (

    select * from listed
    union all by name
    select * from counted

),

final as (

    select
        vendor,
        site_key,
        stat_date,
        event_id,
        event_category,
        event_name,
        cast(occurrences as bigint) as occurrences,
        cast(unique_visitors as bigint) as unique_visitors,
        {{ null_reasons({'occurrences': 'occurrences_reason', 'unique_visitors': 'visitors_reason'}) }} as reason_null,
        source,
        day_basis,
        is_list_cut,
        is_delta_bounded
    from unioned
    where {{ in_replaced_window('stat_date', margin) }}

)

select * from final
