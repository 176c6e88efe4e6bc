with breakdowns as (

    select * from {{ ref('stg_pirsch__breakdowns') }}
    where dimension in ('utm_source', 'utm_medium', 'utm_campaign', 'utm_content', 'utm_term') and {{ in_window('partition_date', 1) }}

),

reported as (

    select
        'pirsch' as vendor,
        site_key,
        stat_date,
        replace(dimension, 'utm_', '') as utm_dimension,
        value as utm_raw,
        visitors,
        sessions,
        coalesce(possibly_truncated, false) as is_truncated
    from breakdowns

)

select * from reported
