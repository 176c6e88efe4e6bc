with tags as (

    select * from {{ ref('stg_inspectlet__session_tags') }}
    where {{ is_conversion_name('tag') }} and {{ in_window('partition_date', 2) }}

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

mapped as (

    select
        'inspectlet' as vendor,
        tags.site_key,
        tags.partition_date,
        tags.landed_at,
        concat_ws('-', tags.wid, tags.sid, tags.tag_index) as vendor_conversion_id,
        tags.tag as vendor_goal,
        {{ conversion_name('tags.tag') }} as named_goal,
        tags.wid || '-' || tags.sid as vendor_session_id,
        cast(sessions.uid as varchar) as vendor_visitor_id,
        coalesce(tags.tagged_at, tags.session_started_at) as converted_at_utc,
        tags.session_started_at as filed_at_utc,
        tags.revenue,
        cast(null as varchar) as currency_code,
        false as is_reversal,
        cast(1 as double) as sample_rate
    from tags
    left join sessions using (site_key, partition_date, wid, sid)

)

select * from mapped
