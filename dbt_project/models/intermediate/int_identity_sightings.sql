{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'seen_date_local'}
    )
}}

with logins as (

    {% for vendor in var('login_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__logins_mapped') }}
    where {{ links_identities() }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

dated as (

    select
        logins.*,
        {{ local_date('logins.seen_at_utc', 'sites.timezone') }} as seen_date_local
    from logins
    inner join sites on logins.site_key = sites.site_key

),

counted as (

    select
        site_key,
        vendor,
        vendor_visitor_id,
        person_ref,
        evidence,
        seen_date_local,
        min(seen_at_utc) as first_seen_at_utc,
        max(seen_at_utc) as last_seen_at_utc,
        count(*) as sighting_count
    from dated
    group by site_key, vendor, vendor_visitor_id, person_ref, evidence, seen_date_local

)

select * from counted
where {{ in_window('seen_date_local') }}
