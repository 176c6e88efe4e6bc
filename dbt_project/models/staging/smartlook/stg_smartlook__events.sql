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
        -- Of a conversion only: any other value or property is what somebody typed.
        case
            when event_type = 'custom' and {{ is_conversion_name('event_name') }} then coalesce(
                {{ amount(json_property('properties_json', var('revenue_properties'))) }},
                {{ amount('"value"') }}
            )
        end as revenue,
        case
            when event_type = 'custom' and {{ is_conversion_name('event_name') }} then nullif(regexp_extract(
                upper({{ json_property('properties_json', ['currency']) }}), '^[A-Z]{3}$'
            ), '')
        end as currency_code,

        ---------- times
        started_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
