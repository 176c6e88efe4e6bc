with sessions as (

    select * from {{ ref('stg_inspectlet__sessions') }}
    where link_ref is not null and {{ in_window('partition_date', 2) }}

),

signals as (

    select
        'inspectlet' as vendor,
        site_key,
        partition_date,
        wid || '-' || sid as vendor_session_id,
        link_ref,
        link_host,
        cast(null as bigint) as error_count,
        cast(null as bigint) as rage_click_count
    from sessions

)

select * from signals
