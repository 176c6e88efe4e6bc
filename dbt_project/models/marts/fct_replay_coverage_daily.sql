{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with recorded_segments as (

    select * from {{ ref('int_recorded_segments') }}
    where {{ in_window('stat_date') }}

),

estimated_segments as (

    select * from {{ ref('int_' ~ var('reconciliation_anchor') ~ '__segment_sessions') }}
    where {{ in_window('stat_date') }}

),

dates as (

    select * from {{ ref('int_recorded_days') }}
    where {{ in_window('stat_date') }}

),

segments as (

    select
        dates.site_key,
        dates.stat_date,
        dates.vendor,
        known.segment_dimension,
        known.segment_value,
        dates.reason_null
    from dates
    inner join (
        select site_key, stat_date, segment_dimension, segment_value from recorded_segments
        union
        select site_key, stat_date, segment_dimension, segment_value from estimated_segments
    ) as known
        on dates.site_key = known.site_key and dates.stat_date = known.stat_date

),

measured as (

    select
        segments.*,
        case when segments.reason_null is null then coalesce(recorded.sessions, 0) end as recorded_sessions,
        case
            when estimated.sessions is not null then estimated.sessions
            -- A list that was read and does not name the segment says that there was nobody.
            when segments.segment_dimension in ('device', 'country') and whole.sessions is not null then 0
        end as estimated_sessions,
        whole.sessions as estimated_in_all,
        whole_recorded.sessions as recorded_in_all
    from segments
    left join recorded_segments as recorded using (site_key, stat_date, vendor, segment_dimension, segment_value)
    left join estimated_segments as estimated using (site_key, stat_date, segment_dimension, segment_value)
    left join estimated_segments as whole
        on
            segments.site_key = whole.site_key
            and segments.stat_date = whole.stat_date
            and whole.segment_dimension = 'all'
    left join recorded_segments as whole_recorded
        on
            segments.site_key = whole_recorded.site_key
            and segments.stat_date = whole_recorded.stat_date
            and segments.vendor = whole_recorded.vendor
            and whole_recorded.segment_dimension = 'all'

),

explained as (

    select
        * exclude (reason_null),
        case
            when reason_null is not null then reason_null
            when estimated_in_all is null then 'anchor_missing'
            when estimated_sessions is null then 'anchor_has_no_segment'
            when estimated_sessions < {{ var('coverage_minimum_sessions') }} then 'low_volume'
        end as reason_null
    from measured

),

final as (

    select
        site_key,
        stat_date,
        vendor,
        segment_dimension,
        segment_value,
        recorded_sessions,
        estimated_sessions,
        case when reason_null is null then recorded_sessions / estimated_sessions end as coverage,
        case
            when reason_null is null and recorded_in_all > 0
                then (recorded_sessions / estimated_sessions) / (recorded_in_all / estimated_in_all)
        end as bias_ratio,
        reason_null
    from explained

)

select * from final
