with histogram as (

    select * from {{ ref('stg_smartlook__event_daily') }}
    where {{ in_window('partition_date') }}

),

mapped as (

    select
        'smartlook' as vendor,
        site_key,
        stat_date,
        event_id,
        category_name as event_category,
        event_name,
        occurrence_count as occurrences,
        unique_visitors,
        case when occurrence_count is null then 'not_reported' end as occurrences_reason,
        'not_reported' as visitors_reason,
        'reported' as source,
        'utc' as day_basis,
        false as is_list_cut,
        cast(null as boolean) as is_delta_bounded
    from histogram

)

select * from mapped
