with capabilities as (

    select * from {{ ref('vendor_capabilities') }}

),

enabled as (

    select vendor, count(*) as enabled_site_count
    from {{ ref('int_sites_mapped') }}
    where is_enabled
    group by vendor

),

final as (

    select
        capabilities.*,
        coalesce(enabled.enabled_site_count, 0) as enabled_site_count
    from capabilities
    left join enabled on capabilities.vendor = enabled.vendor

)

select * from final
