with conversions as (

    select * from {{ ref('int_coded_conversions') }}

),

sites as (

    select site_key, timezone
    from {{ ref('int_sites_mapped') }}
    where vendor = 'kameleoon' and is_enabled

),

-- "Kameleoon did not see it" can be said of days it was asked about only.
asked as (

    select site_key, partition_date
    from {{ ref('int_partitions_landed') }}
    where vendor = 'kameleoon' and not is_blocked

),

seen as (

    select site_key, visitor_code, converted_at
    from {{ ref('stg_kameleoon__conversions') }}
    where not is_reversal and {{ in_window('partition_date', 2) }}

),

unseen as (

    select
        conversions.*,
        {{ local_date('conversions.converted_at_utc', 'sites.timezone') }} as conversion_date_local
    from conversions
    inner join sites on conversions.site_key = sites.site_key
    inner join asked
        on conversions.site_key = asked.site_key and conversions.conversion_date_utc = asked.partition_date
    anti join seen
        on
            conversions.site_key = seen.site_key
            and conversions.visitor_code = seen.visitor_code
            and abs(epoch(conversions.converted_at_utc - seen.converted_at)) <= {{ var('same_conversion_seconds') }}

)

select * from unseen
