with source as (

    select * from {{ lake_source('smartlook', 'sessions') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        session_id,
        visitor_id,
        kameleoon_visitor_code,
        uid_ref,
        email_ref,
        {{ link_reference('dashboard_url') }} as link_ref,

        ---------- words
        {{ url_host('dashboard_url') }} as link_host,
        page_urls,
        landing_url,
        exit_url,
        referrer_url,
        hostname,
        protocol,
        browser_name,
        platform_name,
        os_name,
        country_code,
        country_name,
        region,
        device_type,

        ---------- numbers
        duration_seconds,
        page_count,
        screen_width_px,
        screen_height_px,
        note_count,

        ---------- flags
        {{ is_bot_user_agent('user_agent') }} as is_bot_user_agent,

        ---------- times
        started_at,
        ended_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
