with source as (

    select * from {{ lake_source('inspectlet', 'sessions') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        wid,
        sid,
        uid,
        {{ link_reference('session_link') }} as link_ref,

        ---------- words
        {{ url_host('session_link') }} as link_host,
        duration_unit,
        landing_url,
        exit_url,
        referrer_source,
        referrer_json,
        browser_name,
        {{ os_from_user_agent('user_agent') }} as os_name,
        country_code,
        device_type,

        ---------- numbers
        session_duration_raw,
        duration_seconds,
        num_pages,
        listed_page_count,
        viewport_width_px,
        viewport_height_px,
        tag_count,

        ---------- flags
        is_new_visitor,
        is_starred,
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
