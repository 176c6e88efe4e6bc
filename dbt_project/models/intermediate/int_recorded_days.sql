with site_days as (

    select * from {{ ref('int_site_days') }}
    where vendor in ('{{ var('replay_vendors') | join("', '") }}')

),

judged as (

    select
        site_key,
        stat_date,
        vendor,
        case
            when is_blocked then 'partition_blocked'
            when not is_landed then 'not_landed'
            when not is_complete then 'incomplete_date'
        end as reason_null
    from site_days

),

days as (

    select * from judged
    union all by name
    select
        site_key,
        stat_date,
        'any' as vendor,
        case when count(reason_null) > 0 then 'vendor_missing' end as reason_null
    from judged
    group by site_key, stat_date

)

select * from days
