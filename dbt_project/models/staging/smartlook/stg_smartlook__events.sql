with source as (

    select * from {{ lake_source('smartlook', 'events') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        event_id,
        visitor_id,
        session_id,

        ---------- words
        event_type,
        event_name,
        source_type,
        selector,
        page_url,

        ---------- numbers
        duration_seconds,
        sample_rate,

        ---------- times
        started_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
