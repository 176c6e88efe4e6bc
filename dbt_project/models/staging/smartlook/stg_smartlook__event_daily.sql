with source as (

    select * from {{ lake_source('smartlook', 'event_daily') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        event_id,
        category_id,

        ---------- words
        event_name,
        category_name,

        ---------- numbers
        occurrence_count,
        unique_visitors,

        ---------- times
        stat_date,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
