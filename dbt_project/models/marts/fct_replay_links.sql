{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        schema='replay',
        meta={'window_column': 'session_date_local', 'masked_columns': ['session_key', 'link_ref']}
    )
}}

{%- set retention = var('replay_retention_days') %}

with outcomes as (

    select * from {{ ref('int_replay_outcomes') }}
    where {{ in_window('session_date_local') }}

),

expiring as (

    select
        *,
        {% if retention -%}
        case vendor
            {% for vendor, days in retention.items() -%}
            when '{{ vendor }}' then started_at_utc + interval {{ days }} day
            {% endfor -%}
        end
        {%- else -%}
        cast(null as timestamp)
        {%- endif %} as link_expires_at_utc
    from outcomes

),

-- The best recording of an outcome is one a person marked, then the one with most to see.
ranked as (

    select
        *,
        row_number() over (
            partition by outcome, site_key, session_date_local
            order by
                coalesce(is_starred, false) desc,
                coalesce(note_count, 0) desc,
                coalesce(page_count, 0) desc,
                coalesce(duration_seconds, 0) desc,
                started_at_utc,
                session_key
        ) as priority
    from expiring

),

final as (

    select
        session_key,
        vendor,
        site_key,
        session_date_local,
        partition_date,
        outcome,
        priority,
        started_at_utc,
        duration_seconds,
        page_count,
        link_ref,
        link_host,
        link_expires_at_utc,
        case when link_expires_at_utc is null then 'not_documented' end as expiry_reason_null
    from ranked

)

select * from final
