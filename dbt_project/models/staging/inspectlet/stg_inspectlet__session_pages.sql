with source as (

    select * from {{ lake_source('inspectlet', 'session_pages') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        wid,
        sid,
        page_index,
        rid,

        ---------- words
        page_url,
        page_title,

        ---------- times
        session_started_at,
        opened_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
