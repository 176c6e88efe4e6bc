{{
    config(
        materialized='incremental',
        incremental_strategy='replace_rows',
        on_schema_change='append_new_columns',
        meta={'row_key': 'visitor_key', 'replaced_rows': 'visitors_touched'}
    )
}}

with sessions as (

    select * from {{ ref('fct_sessions') }}
    where vendor_visitor_id is not null

),

{% if is_incremental() -%}
-- Whose row this build may change: visitors of the window as it was and as it is, and all who ever logged in.
touched as (

    select vendor, site_key, vendor_visitor_id from {{ this }}
    where {{ visitors_touched() }}
    union
    select vendor, site_key, vendor_visitor_id from sessions
    where {{ in_window('session_date_local') }}
    union
    select vendor, site_key, vendor_visitor_id from {{ ref('int_identity_clusters') }}

),

{% endif -%}
visitors as (

    select
        vendor,
        site_key,
        vendor_visitor_id,
        min(session_date_local) as first_seen_date,
        max(session_date_local) as last_seen_date,
        count(*) as session_count,
        count(*) filter (has_conversion) as converting_session_count
    from sessions
    {% if is_incremental() -%}
    semi join touched using (vendor, site_key, vendor_visitor_id)
    {% endif -%}
    group by vendor, site_key, vendor_visitor_id

),

-- After a change of key a visitor may be known by two versions: the one seen last holds.
persons as (

    select *
    from {{ ref('int_identity_clusters') }}
    qualify row_number() over (
        partition by site_key, vendor, vendor_visitor_id order by last_seen_at_utc desc, key_version
    ) = 1

),

final as (

    select
        {{ surrogate_key(['visitors.vendor', 'visitors.site_key', 'visitors.vendor_visitor_id']) }} as visitor_key,
        visitors.vendor,
        visitors.site_key,
        visitors.vendor_visitor_id,
        visitors.first_seen_date,
        visitors.last_seen_date,
        visitors.session_count,
        visitors.converting_session_count,
        persons.person_key,
        persons.key_version,
        persons.evidence,
        coalesce(persons.is_ambiguous, false) as is_ambiguous,
        case
            when persons.person_key is not null then null
            when not {{ links_identities() }} then 'policy_none'
            when persons.vendor is null then 'not_logged_in'
            else persons.quarantine_reason
        end as reason_null
    from visitors
    left join persons
        on
            visitors.vendor = persons.vendor
            and visitors.site_key = persons.site_key
            and visitors.vendor_visitor_id = persons.vendor_visitor_id

)

select * from final
