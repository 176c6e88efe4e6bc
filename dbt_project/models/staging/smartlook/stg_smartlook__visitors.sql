with source as (

    select * from {{ lake_source('smartlook', 'visitors') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        visitor_id,
        kameleoon_visitor_code,

        ---------- times
        first_seen_at,
        last_seen_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
