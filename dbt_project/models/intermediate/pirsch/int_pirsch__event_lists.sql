with events as (

    select * from {{ ref('stg_pirsch__events') }}
    where {{ in_window('partition_date') }}

),

mapped as (

    select
        'pirsch' as vendor,
        site_key,
        stat_date,
        name as event_id,
        cast(null as varchar) as event_category,
        name as event_name,
        -- The newer field counts occurrences; before it, an event's views were them.
        coalesce(event_count, views) as occurrences,
        visitors as unique_visitors,
        'not_reported' as occurrences_reason,
        'not_reported' as visitors_reason,
        'reported' as source,
        'site' as day_basis,
        possibly_truncated as is_list_cut,
        cast(null as boolean) as is_delta_bounded
    from events

)

select * from mapped
