{#-
    What the lake itself says, for the tests of vertical integrity: staging alone, by another way than the models go.
    Belongs here: the newest row of each session, and its pages and events, straight from staging. Does not belong here: anything a model uses.
-#}

{#- Newest row of each session of the window (two days wider): vendor, site, session, partition, local date, visitor, pages. -#}
{% macro newest_lake_sessions() %}
    (
        select staged.*, {{ local_date('staged.started_at', 'sites.timezone') }} as session_date_local
        from (
            select
                'smartlook' as vendor, site_key, session_id as session_id, partition_date, started_at, landed_at,
                visitor_id as visitor, page_count
            from {{ ref('stg_smartlook__sessions') }}
            union all
            select 'inspectlet', site_key, wid || '-' || sid, partition_date, started_at, landed_at, cast(uid as varchar), num_pages
            from {{ ref('stg_inspectlet__sessions') }}
            union all
            select
                'kameleoon', site_key, visitor_code || '-' || epoch_ms(started_at), partition_date, started_at, landed_at,
                visitor_code, page_count
            from {{ ref('stg_kameleoon__visits') }}
        ) as staged
        inner join {{ ref('dim_site') }} as sites on staged.site_key = sites.site_key
        where {{ in_window('staged.partition_date', 2) }}
        qualify row_number() over (
            partition by staged.vendor, staged.site_key, staged.session_id
            order by staged.landed_at desc, staged.partition_date desc
        ) = 1
    )
{% endmacro %}

{#- Page rows of those sessions: vendor, site, session, partition, URL. -#}
{% macro lake_pages() %}
    (
        select 'smartlook' as vendor, site_key, session_id, partition_date, unnest(page_urls) as url
        from {{ ref('stg_smartlook__sessions') }}
        union all
        select 'inspectlet', site_key, wid || '-' || sid, partition_date, page_url
        from {{ ref('stg_inspectlet__session_pages') }}
        union all
        select 'kameleoon', site_key, visitor_code || '-' || epoch_ms(visit_started_at), partition_date, url
        from {{ ref('stg_kameleoon__visit_pages') }}
    )
{% endmacro %}
