with days as (

    select * from {{ ref('stg_pirsch__daily_stats') }}
    where {{ in_window('partition_date') }}

),

-- A zone this database does not know would stop every model that converts by it.
known as (

    select days.site_key, days.stat_date, days.domain_timezone as timezone
    from days
    semi join pg_timezone_names() as zones on days.domain_timezone = zones.name

)

select * from known
