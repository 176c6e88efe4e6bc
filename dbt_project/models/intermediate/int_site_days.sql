{{ config(materialized='table') }}

with sites as (

    select * from {{ ref('int_sites_mapped') }}
    where is_enabled

),

vendors as (

    select vendor, partition_basis, coverage from {{ ref('vendor_capabilities') }}

),

partitions as (

    select * from {{ ref('int_partitions_landed') }}

),

-- A date exists for a site once any vendor that has past days delivered it, or a counter grew over it.
dates as (

    select partitions.site_key, partitions.partition_date as stat_date
    from partitions
    inner join vendors on partitions.vendor = vendors.vendor
    where vendors.partition_basis <> 'snapshot'
    union
    select site_key, stat_date
    from {{ ref('int_kissmetrics__session_deltas') }}

),

vendor_days as (

    select
        sites.vendor,
        sites.site_key,
        dates.stat_date,
        vendors.partition_basis,
        vendors.coverage,
        case vendors.partition_basis
            when 'utc' then cast(timezone('UTC', timezone(sites.timezone, cast(dates.stat_date as timestamp))) as date)
            else dates.stat_date
        end as first_partition_date,
        case vendors.partition_basis
            when 'utc' then cast(
                timezone('UTC', timezone(sites.timezone, cast(dates.stat_date + 1 as timestamp)))
                - interval 1 microsecond as date
            )
            else dates.stat_date
        end as last_partition_date
    from sites
    inner join dates on sites.site_key = dates.site_key
    inner join vendors on sites.vendor = vendors.vendor
    where dates.stat_date >= sites.start_date and {{ in_window('dates.stat_date') }}

),

judged as (

    select
        vendor_days.vendor,
        vendor_days.site_key,
        vendor_days.stat_date,
        any_value(vendor_days.partition_basis) as partition_basis,
        any_value(vendor_days.coverage) as coverage,
        coalesce(bool_or(partitions.partition_date = vendor_days.stat_date), false) as is_landed,
        coalesce(bool_or(partitions.is_blocked), false) as is_blocked,
        count(partitions.partition_date) filter (not partitions.is_blocked)
        = any_value(vendor_days.last_partition_date - vendor_days.first_partition_date) + 1 as is_complete
    from vendor_days
    left join partitions
        on
            vendor_days.vendor = partitions.vendor
            and vendor_days.site_key = partitions.site_key
            and partitions.partition_date between vendor_days.first_partition_date and vendor_days.last_partition_date
    group by vendor_days.vendor, vendor_days.site_key, vendor_days.stat_date

)

select * from judged
