{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

{#- Dimension to the value a session has of it; NULL leaves the session out, as vendors' own lists leave out the untagged. -#}
{%- set dimensions = {
    'country': 'country_code',
    'platform': "case device_class when 'desktop' then 'desktop' when 'unknown' then 'unknown' else 'mobile' end",
    'device': 'device_class',
    'os': 'os_family',
    'browser': 'browser_family',
    'referrer': "case when referrer_host is not null then referrer_host when referrer_code <> 'd' then '(unknown)' else '' end",
    'utm_source': 'utm_source_norm',
    'utm_medium': 'utm_medium_norm',
    'utm_campaign': 'utm_campaign_norm',
    'utm_content': 'utm_content_norm',
    'utm_term': 'utm_term_norm',
} %}

with listed as (

    {% for vendor in var('breakdown_list_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__breakdown_lists') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

sessions as (

    select * from {{ ref('int_sessions_enriched') }}
    where {{ in_window('session_date_local') }}

),

visitors_of_date as (

    select vendor, site_key, session_date_local, count(distinct vendor_visitor_id) as visitor_count
    from sessions
    group by vendor, site_key, session_date_local

),

counted as (

    {% for dimension, value in dimensions.items() %}
    select
        vendor,
        site_key,
        session_date_local,
        '{{ dimension }}' as dimension,
        {{ value }} as value,
        nullif(count(distinct vendor_visitor_id), 0) as visitors,
        count(*) as sessions,
        case when count(page_count) > 0 then count(*) filter (page_count = 1) end as bounces
    from sessions
    group by vendor, site_key, session_date_local, {{ value }}
    having value is not null
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

derived as (

    select
        counted.* exclude (session_date_local),
        counted.session_date_local as stat_date,
        '' as parent_value,
        coalesce(nullif(counted.value, ''), '(none)') as value_norm,
        false as is_other,
        false as is_list_cut,
        counted.visitors / nullif(visitors_of_date.visitor_count, 0) as share,
        'no_visitor_id' as visitors_reason,
        'no_page_counts' as sessions_reason
    from counted
    inner join visitors_of_date using (vendor, site_key, session_date_local)

),

unioned as (

    select *, 'reported' as source from listed
    union all by name
    select *, 'derived' as source from derived

),

final as (

    select
        vendor,
        site_key,
        stat_date,
        'native' as basis,
        dimension,
        parent_value,
        value,
        value_norm,
        is_other,
        cast(visitors as bigint) as visitors,
        cast(sessions as bigint) as sessions,
        cast(bounces as bigint) as bounces,
        share,
        {{ null_reasons({
            'visitors': 'visitors_reason', 'sessions': 'sessions_reason', 'bounces': 'sessions_reason', 'share': 'visitors_reason',
        }) }} as reason_null,
        source,
        is_list_cut
    from unioned
    where {{ in_window('stat_date') }}

)

select * from final
