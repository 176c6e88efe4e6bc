with tags as (

    select * from {{ ref('stg_inspectlet__session_tags') }}
    where email_ref is not null and {{ in_window('partition_date', 2) }}

),

sessions as (

    select
        site_key,
        partition_date,
        wid,
        sid,
        uid
    from {{ ref('stg_inspectlet__sessions') }}
    where {{ in_window('partition_date', 2) }}

),

-- The name a site gives a visitor (display_name) is no reference: two people are called the same.
mapped as (

    select
        'inspectlet' as vendor,
        tags.site_key,
        cast(sessions.uid as varchar) as vendor_visitor_id,
        tags.email_ref as person_ref,
        'tag_email' as evidence,
        tags.session_started_at as seen_at_utc
    from tags
    inner join sessions using (site_key, partition_date, wid, sid)
    where sessions.uid is not null

)

select * from mapped
