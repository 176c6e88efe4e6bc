{{ config(materialized='table') }}

with days as (

    select * from {{ ref('int_experiment_exposure_days') }}

),

sites as (

    select site_key, timezone from {{ ref('dim_site') }}

),

-- The first variation is the one that counts, whatever was seen later: who flips must not move between the arms.
firsts as (

    select
        vendor,
        site_key,
        kind,
        experiment_id,
        vendor_visitor_id,
        arg_min(variation_id, (first_exposed_at_utc, variation_id)) as variation_id,
        min(first_exposed_at_utc) as first_exposed_at_utc,
        max(last_exposed_at_utc) as last_exposed_at_utc,
        count(distinct variation_id) as variation_count,
        cast(sum(exposure_count) as bigint) as exposure_count
    from days
    group by vendor, site_key, kind, experiment_id, vendor_visitor_id

),

located as (

    select
        firsts.*,
        {{ local_date('firsts.first_exposed_at_utc', 'sites.timezone') }} as first_exposed_date
    from firsts
    inner join sites on firsts.site_key = sites.site_key

),

-- Whether any other vendor saw the visitor around the exposure, by the exposing vendor's own visitor code.
seen as (

    select
        located.vendor,
        located.site_key,
        located.vendor_visitor_id,
        located.first_exposed_date,
        string_agg(distinct coded.vendor, ', ' order by coded.vendor) as seen_by
    from located
    inner join {{ ref('int_coded_visitor_days') }} as coded
        on
            located.site_key = coded.site_key
            and located.vendor_visitor_id = coded.visitor_code
            and located.vendor <> coded.vendor
            and coded.session_date_local between located.first_exposed_date - 1 and located.first_exposed_date + 1
    group by located.vendor, located.site_key, located.vendor_visitor_id, located.first_exposed_date

),

final as (

    select
        {{ surrogate_key(['located.vendor', 'located.site_key', 'located.kind', 'located.experiment_id']) }} as experiment_key,
        located.vendor,
        located.site_key,
        located.kind,
        located.experiment_id,
        located.vendor_visitor_id,
        located.variation_id,
        located.first_exposed_at_utc,
        located.first_exposed_date,
        located.last_exposed_at_utc,
        located.exposure_count,
        cast(located.variation_count as integer) as variation_count,
        located.variation_count > 1 as is_flipped,
        seen.seen_by
    from located
    left join seen using (vendor, site_key, vendor_visitor_id, first_exposed_date)

)

select * from final
