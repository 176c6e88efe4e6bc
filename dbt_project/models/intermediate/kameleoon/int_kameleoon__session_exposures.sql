with exposures as (

    select distinct site_key, visitor_code, experiment_id, exposed_at
    from {{ ref('stg_kameleoon__exposures') }}
    where kind = 'experiment' and experiment_id is not null and {{ in_window('partition_date', 2) }}

),

coded as (

    select
        sessions.session_key,
        coded.site_key,
        coded.visitor_code,
        sessions.started_at_utc,
        coalesce(
            sessions.ended_at_utc,
            sessions.started_at_utc + to_microseconds(cast(coalesce(sessions.duration_seconds, 0) * 1e6 as bigint))
        ) as ended_at_utc
    from {{ ref('int_coded_sessions') }} as coded
    inner join {{ ref('int_sessions_enriched') }} as sessions
        on
            coded.vendor = sessions.vendor
            and coded.site_key = sessions.site_key
            and coded.vendor_session_id = sessions.vendor_session_id
    where {{ in_window('coded.session_date_local', 1) }}

),

-- The experiment is shown while the page loads, which a recording may notice a moment later.
exposed as (

    select distinct coded.session_key, exposures.experiment_id
    from coded
    inner join exposures
        on
            coded.site_key = exposures.site_key
            and coded.visitor_code = exposures.visitor_code
            and exposures.exposed_at
            between coded.started_at_utc - interval 60 second and coded.ended_at_utc + interval 60 second

)

select * from exposed
