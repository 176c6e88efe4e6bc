with source as (

    select * from {{ lake_source('kameleoon', 'visits') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        visitor_code,
        site_code,
        login_ref,

        ---------- words
        landing_url,
        exit_url,
        first_referrer_url,
        device_type,
        browser,
        browser_version,
        os,
        time_zone,
        locale,
        country,
        region,
        city,
        -- Which custom data was set and when; never what it was set to.
        list_transform(
            from_json(custom_data, '[{"time": "BIGINT", "data": {"index": "VARCHAR"}}]'),
            lambda custom: struct_pack(data_index := custom."data"."index", set_at := epoch_ms(custom."time"))
        ) as custom_data_events,

        ---------- numbers
        duration_seconds,
        page_count,
        conversion_count,
        exposure_count,
        visit_number,
        seconds_since_previous_visit,
        window_width_px,
        window_height_px,
        screen_width_px,
        screen_height_px,

        ---------- flags
        possibly_truncated,

        ---------- times
        started_at,
        last_event_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
