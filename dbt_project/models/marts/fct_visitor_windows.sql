{#- A visitor of a date is one of the windows that end on it and later: of 28 dates, or until the month is over. -#}
{%- set lengths, month_dates = [7, 28], 31 -%}
{%- set margin = {'before': 0, 'after': month_dates - 1} -%}

{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date', 'margin': margin}
    )
}}

with site_days as (

    select * from {{ ref('fct_daily_traffic') }}
    where basis = 'native' and {{ in_window('stat_date', month_dates - 1) }}

),

visits as (

    select distinct vendor, site_key, vendor_visitor_id, session_date_local
    from {{ ref('fct_sessions') }}
    where vendor_visitor_id is not null and {{ in_window('session_date_local', month_dates - 1) }}

),

followed as (

    select
        *,
        lead(session_date_local) over (
            partition by vendor, site_key, vendor_visitor_id order by session_date_local
        ) as next_date,
        row_number() over (
            partition by vendor, site_key, vendor_visitor_id, date_trunc('month', session_date_local) order by session_date_local
        ) = 1 as is_first_of_month
    from visits

),

-- A visit counts in the windows from its date on until the visitor's next visit counts instead, or the window has passed it: nobody twice.
moves as (

    select vendor, site_key, session_date_local as stat_date,
        {% for length in lengths -%}
        count(*) as moved_{{ length }}d,
        {% endfor -%}
        count(*) filter (is_first_of_month) as moved_month
    from followed
    group by vendor, site_key, session_date_local
    {% for length in lengths %}
    union all by name
    select vendor, site_key, least(session_date_local + {{ length }}, next_date) as stat_date,
        -count(*) as moved_{{ length }}d
    from followed
    group by all
    {% endfor %}
    union all by name
    select vendor, site_key, stat_date
    from site_days

),

summed as (

    select vendor, site_key, stat_date,
        {% for length in lengths -%}
        coalesce(sum(moved_{{ length }}d), 0) as moved_{{ length }}d,
        {% endfor -%}
        coalesce(sum(moved_month), 0) as moved_month
    from moves
    group by vendor, site_key, stat_date

),

running as (

    select
        summed.vendor,
        summed.site_key,
        summed.stat_date,
        site_days.vendor is not null as is_site_day,
        {% for length in lengths -%}
        sum(summed.moved_{{ length }}d) over (
            partition by summed.vendor, summed.site_key order by summed.stat_date
        ) as visitors_{{ length }}d,
        count(site_days.visitors) over last_{{ length }} as known_{{ length }}d,
        count(*) filter (site_days.is_complete_day) over last_{{ length }} as complete_{{ length }}d,
        {{ length }} as dates_{{ length }}d,
        {% endfor -%}
        sum(summed.moved_month) over this_month as visitors_month,
        count(site_days.visitors) over this_month as known_month,
        count(*) filter (site_days.is_complete_day) over this_month as complete_month,
        day(summed.stat_date) as dates_month,
        site_days.coverage
    from summed
    left join site_days
        on
            summed.vendor = site_days.vendor
            and summed.site_key = site_days.site_key
            and summed.stat_date = site_days.stat_date
    window
        {% for length in lengths -%}
        last_{{ length }} as (
            partition by summed.vendor, summed.site_key
            order by summed.stat_date range between interval {{ length - 1 }} days preceding and current row
        ),
        {% endfor -%}
        this_month as (
            partition by summed.vendor, summed.site_key, date_trunc('month', summed.stat_date) order by summed.stat_date
        )

),

judged as (

    select
        running.* exclude (visitors_7d, visitors_28d, visitors_month),
        capabilities.has_visitor_id,
        {% for length in ['7d', '28d', 'month'] -%}
        case
            when capabilities.has_visitor_id and running.known_{{ length }} = running.dates_{{ length }} then running.visitors_{{ length }}
        end as visitors_{{ length }},
        {% endfor -%}
        case
            when not capabilities.has_visitor_id then if(capabilities.has_daily_aggregate, 'needs_request_per_window', 'not_offered')
            else 'dates_missing'
        end as reason
    from running
    inner join {{ ref('vendor_capabilities') }} as capabilities on running.vendor = capabilities.vendor
    where running.is_site_day

),

final as (

    select
        vendor,
        site_key,
        stat_date,
        {% for length in ['7d', '28d', 'month'] -%}
        cast(visitors_{{ length }} as bigint) as visitors_{{ length }},
        {% endfor -%}
        {% for length in ['7d', '28d', 'month'] -%}
        complete_{{ length }} = dates_{{ length }} as is_complete_{{ length }},
        {% endfor -%}
        coverage,
        {{ null_reasons({'visitors_7d': 'reason', 'visitors_28d': 'reason', 'visitors_month': 'reason'}) }} as reason_null
    from judged
    where {{ in_replaced_window('stat_date', margin) }}

)

select * from final
