{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'filed_date_local'}
    )
}}

with unioned as (

    {% for vendor in var('exposure_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__exposures_mapped') }}
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
        unioned.*,
        {{ local_date('unioned.filed_at_utc', 'sites.timezone') }} as filed_date_local
    from unioned
    inner join sites on unioned.site_key = sites.site_key

),

counted as (

    select
        vendor,
        site_key,
        kind,
        experiment_id,
        variation_id,
        vendor_visitor_id,
        filed_date_local,
        min(exposed_at_utc) as first_exposed_at_utc,
        max(exposed_at_utc) as last_exposed_at_utc,
        count(*) as exposure_count
    from dated
    group by vendor, site_key, kind, experiment_id, variation_id, vendor_visitor_id, filed_date_local

)

select * from counted
where {{ in_window('filed_date_local') }}
