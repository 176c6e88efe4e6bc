with reads as (

    select * from {{ ref('stg_ops__partition_measures') }}

),

sites as (

    select site_key, any_value(timezone) as timezone
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

dated as (

    select
        reads.*,
        {{ local_date('reads.asked_at_utc', "case when reads.day_basis = 'site' then sites.timezone else 'UTC' end") }} as read_date
    from reads
    inner join sites on reads.site_key = sites.site_key

),

numbered as (

    select
        *,
        row_number() over reads_of_a_number as read_number,
        lag(value) over reads_of_a_number as previous_value,
        first_value(value) over reads_of_a_number as first_value,
        lead(batch) over reads_of_a_number is null as is_latest_read
    from dated
    window reads_of_a_number as (
        partition by vendor, table_name, site_key, partition_date, metric order by asked_at_utc, batch
    )

),

final as (

    select
        vendor,
        table_name,
        site_key,
        partition_date as stat_date,
        day_basis,
        metric,
        read_number,
        asked_at_utc as read_at_utc,
        read_date - partition_date as age_days,
        value,
        previous_value,
        value - previous_value as change,
        case when previous_value > 0 then (value - previous_value) / previous_value end as change_share,
        value - first_value as change_since_first,
        is_latest_read
    from numbered

)

select * from final
