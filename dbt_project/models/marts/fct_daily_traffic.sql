{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

{%- set measures = ['visitors', 'sessions', 'views', 'bounces', 'bounce_rate', 'average_session_seconds'] %}

with spine as (

    select site_days.*, bases.basis
    from {{ ref('int_site_days') }} as site_days
    cross join (values ('native'), ('common')) as bases (basis)

),

daily as (

    select *, 'native' as basis from {{ ref('int_daily_native') }}
    union all by name
    select *, 'common' as basis from {{ ref('int_daily_common') }}

),

snapshot_reasons as (

    select site_key, stat_date, reason_null
    from {{ ref('int_kissmetrics__session_deltas') }}

),

definitions as (

    select
        vendor,
        basis,
        {% for measure in measures -%}
        max(nullif(reason_null, '')) filter (metric = '{{ measure }}') as {{ measure }}_reason{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('metric_definitions') }}
    group by vendor, basis

),

-- Why a whole row says nothing, if it does. A closed day of a session vendor without sessions is a true zero.
explained as (

    select
        spine.*,
        case
            when spine.partition_basis = 'snapshot' then
                case when daily.sessions is null then coalesce(snapshot_reasons.reason_null, 'fewer_than_two_snapshots') end
            when spine.is_blocked then 'partition_blocked'
            when not spine.is_landed then 'not_landed'
            when spine.partition_basis = 'site' and daily.vendor is null then 'not_reported'
        end as row_reason,
        spine.partition_basis = 'utc' and daily.vendor is null as is_empty_day,
        daily.visitors,
        daily.sessions,
        daily.views,
        daily.bounces,
        daily.average_session_seconds
    from spine
    left join daily
        on
            spine.vendor = daily.vendor
            and spine.site_key = daily.site_key
            and spine.stat_date = daily.stat_date
            and spine.basis = daily.basis
    left join snapshot_reasons
        on
            spine.partition_basis = 'snapshot'
            and spine.site_key = snapshot_reasons.site_key
            and spine.stat_date = snapshot_reasons.stat_date

),

measured as (

    select
        explained.* exclude (visitors, sessions, views, bounces, average_session_seconds),
        definitions.* exclude (vendor, basis),
        {% for measure in ['visitors', 'sessions', 'views', 'bounces'] -%}
        case
            when explained.row_reason is null and definitions.{{ measure }}_reason is null
                then case when explained.is_empty_day then 0 else explained.{{ measure }} end
        end as {{ measure }},
        {% endfor -%}
        case
            when explained.row_reason is null and definitions.average_session_seconds_reason is null
                then explained.average_session_seconds
        end as average_session_seconds
    from explained
    left join definitions on explained.vendor = definitions.vendor and explained.basis = definitions.basis

),

rated as (

    select
        *,
        case when sessions > 0 then bounces / sessions end as bounce_rate
    from measured

),

final as (

    select
        vendor,
        site_key,
        stat_date,
        basis,
        cast(visitors as bigint) as visitors,
        cast(sessions as bigint) as sessions,
        cast(views as bigint) as views,
        cast(bounces as bigint) as bounces,
        bounce_rate,
        average_session_seconds,
        case
            when row_reason is not null then 'all=' || row_reason
            else nullif(concat_ws(
                ', '
                {%- for measure in measures %},
                case when {{ measure }} is null then '{{ measure }}=' || coalesce(
                    {{ measure }}_reason,
                    {% if measure in ('bounce_rate', 'average_session_seconds') -%}
                    case when sessions = 0 then 'no_sessions' end,
                    {% endif -%}
                    '{{ 'no_durations' if measure == 'average_session_seconds' else 'not_reported' }}'
                ) end
                {%- endfor %}
            ), '')
        end as reason_null,
        coverage,
        case when partition_basis = 'snapshot' then row_reason is null else is_complete end as is_complete_day
    from rated

)

select * from final
