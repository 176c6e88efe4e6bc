with sites as (

    select * from {{ ref('int_sites_mapped') }}

),

final as (

    select
        site_key,
        any_value(timezone) as timezone,
        any_value(hostname) as hostname,
        min(start_date) as start_date,
        count(*) filter (is_enabled) as enabled_vendor_count,
        string_agg(vendor, ', ' order by vendor) filter (is_enabled) as enabled_vendors
    from sites
    group by site_key

)

select * from final
