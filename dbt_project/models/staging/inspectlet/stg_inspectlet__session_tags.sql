with source as (

    select * from {{ lake_source('inspectlet', 'session_tags') }}

),

renamed as (

    select
        ---------- partition
        site as site_key,
        day as partition_date,

        ---------- ids
        wid,
        sid,
        tag_index,
        tag,
        email_ref,
        -- The one value that is a key and no person's own words.
        case when tag = 'kameleoon_visitor_code' then "value" end as kameleoon_visitor_code,
        -- A tag set to true arrives as 1: that is no amount.
        case
            when {{ is_conversion_name('tag') }} and trim("value") not in ('0', '1') then {{ amount('"value"') }}
        end as revenue,

        ---------- times
        tagged_at,
        session_started_at,

        ---------- lineage
        _landed_at as landed_at,
        _run_id as run_id
    from source

)

select * from renamed
