with exposures as (

    select * from {{ ref('stg_kameleoon__exposures') }}
    where {{ in_window('partition_date', 2) }}

),

mapped as (

    select
        'kameleoon' as vendor,
        site_key,
        partition_date,
        kind,
        experiment_id,
        -- Without a variation the vendor says that the visitor was left out of the test: nothing was shown.
        variation_id,
        exposure_number,
        visitor_code as vendor_visitor_id,
        exposed_at as exposed_at_utc,
        visit_started_at as filed_at_utc
    from exposures
    where variation_id is not null

)

select * from mapped
