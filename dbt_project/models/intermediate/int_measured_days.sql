{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

-- The vendor's own sessions, on the anchor's dates.
native as (

    select
        sessions.vendor,
        sessions.site_key,
        {{ local_date('sessions.started_at_utc', anchor_timezone('sessions.site_key', 'zones.timezone', 'sites.timezone')) }} as stat_date,
        count(*) as native_sessions,
        count(distinct sessions.vendor_visitor_id) as native_visitors,
        coalesce(sum(sessions.page_count), 0) as native_views
    from {{ ref('int_sessions_enriched') }} as sessions
    inner join sites on sessions.site_key = sites.site_key
    left join {{ ref('int_anchor_zones') }} as zones
        on sessions.site_key = zones.site_key and sessions.session_date_local = zones.stat_date
    group by all

),

-- The same by the anchor's rules, and without bots.
ruled as (

    select
        vendor,
        site_key,
        stat_date,
        count(*) as ruled_sessions,
        count(distinct visitor) as ruled_visitors,
        sum(view_count) as ruled_views,
        count(*) filter (not is_suspected_bot) as human_sessions,
        count(distinct visitor) filter (not is_suspected_bot) as human_visitors,
        coalesce(sum(view_count) filter (not is_suspected_bot), 0) as human_views
    from {{ ref('int_session_walks') }}
    group by all

),

final as (

    select
        native.vendor,
        native.site_key,
        native.stat_date,
        {% for metric in ['sessions', 'visitors', 'views'] -%}
        cast(native.native_{{ metric }} as bigint) as native_{{ metric }},
        cast(coalesce(ruled.ruled_{{ metric }}, 0) as bigint) as ruled_{{ metric }},
        cast(coalesce(ruled.human_{{ metric }}, 0) as bigint) as human_{{ metric }}{{ ',' if not loop.last }}
        {% endfor %}
    from native
    left join ruled
        on native.vendor = ruled.vendor and native.site_key = ruled.site_key and native.stat_date = ruled.stat_date
    where {{ in_window('native.stat_date') }}

)

select * from final
