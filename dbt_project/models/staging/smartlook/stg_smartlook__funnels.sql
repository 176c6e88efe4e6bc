with source as (

    select * from {{ lake_source('smartlook', 'funnels') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        funnel_id,
        step_index,
        event_id,

        ---------- words
        funnel_name,
        event_name,

        ---------- numbers
        visitors_count,
        percent_from_previous_step,
        conversion_rate_raw,

        ---------- times
        stat_date,
        updated_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
