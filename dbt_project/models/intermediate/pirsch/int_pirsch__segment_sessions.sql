with totals as (

    select site_key, stat_date, sessions
    from {{ ref('stg_pirsch__daily_stats') }}
    where sessions is not null and {{ in_window('partition_date') }}

),

shares as (

    select
        site_key,
        stat_date,
        case dimension when 'platform' then 'device' else 'country' end as segment_dimension,
        case dimension when 'platform' then value else coalesce(nullif(upper(value), ''), 'ZZ') end as segment_value,
        sum(relative_visitors) as share
    from {{ ref('stg_pirsch__breakdowns') }}
    where dimension in ('platform', 'country') and {{ in_window('partition_date') }}
    group by all

),

segments as (

    select site_key, stat_date, 'all' as segment_dimension, 'all' as segment_value, cast(sessions as double) as sessions
    from totals
    union all by name
    select
        shares.site_key,
        shares.stat_date,
        shares.segment_dimension,
        shares.segment_value,
        round(totals.sessions * shares.share, 6) as sessions
    from shares
    inner join totals on shares.site_key = totals.site_key and shares.stat_date = totals.stat_date
    where shares.share > 0

)

select * from segments
