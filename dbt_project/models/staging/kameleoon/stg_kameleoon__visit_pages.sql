with source as (

    select * from {{ lake_source('kameleoon', 'visit_pages') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        visitor_code,
        page_number,

        ---------- words
        url,
        canonical_url,
        title,
        referrer_url,

        ---------- times
        visit_started_at,
        viewed_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
