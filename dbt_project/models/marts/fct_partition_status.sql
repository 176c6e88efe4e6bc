with partitions as (

    select * from {{ ref('stg_ops__partition_status') }}

),

final as (

    select
        vendor,
        table_name,
        site_key,
        partition_date,
        status,
        reason,
        row_count,
        requests,
        batch_days,
        landed_at_utc,
        resume_at_utc,
        observed_at_utc
    from partitions

)

select * from final
