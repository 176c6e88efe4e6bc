{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'session_date_local'}
    )
}}

with sessions as (

    select * from {{ ref('int_sessions_enriched') }}
    where {{ in_window('session_date_local') }}

),

flags as (

    select session_key, is_suspected_bot, bot_reason from {{ ref('int_sessions_bot_flagged') }}

),

final as (

    select
        ---------- ids
        sessions.session_key,
        common_session_key,
        vendor,
        site_key,
        vendor_session_id,
        vendor_visitor_id,

        ---------- times
        session_date_local,
        partition_date,
        started_at_utc,
        ended_at_utc,

        ---------- measures
        duration_seconds,
        duration_source,
        page_count,
        distinct_page_count,

        ---------- flags
        page_count = 1 as is_bounce_native,
        {{ is_common_bounce('coalesce(distinct_page_count, page_count)', 'has_conversion', 'duration_seconds') }} as is_bounce_common,
        has_conversion,
        is_new_visitor,
        is_starred,
        note_count,
        flags.is_suspected_bot,
        flags.bot_reason,

        ---------- where they came from
        landing_url,
        landing_path,
        exit_url,
        referrer_url,
        referrer_host,
        referrer_code,
        channel,
        {% for word in ['source', 'medium', 'campaign', 'content', 'term'] -%}
        utm_{{ word }}_raw,
        utm_{{ word }}_norm,
        {% endfor %}
        ---------- with what
        country_code,
        region,
        device_class,
        browser_family,
        os_family,
        screen_width_px,
        screen_height_px,
        viewport_width_px,
        viewport_height_px
    from sessions
    inner join flags on sessions.session_key = flags.session_key

)

select * from final
