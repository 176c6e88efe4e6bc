with pages as (

    select * from {{ ref('fct_page_daily') }}
    where not is_other

),

-- In two steps, and without an ordered aggregate: all dates are read at each build, so a row must cost little.
by_vendor as (

    select
        page_key,
        site_key,
        path,
        vendor,
        max_by(title, stat_date) filter (title is not null) as title,
        max(stat_date) filter (title is not null) as titled_date,
        min(stat_date) as first_seen_date,
        max(stat_date) as last_seen_date
    from pages
    group by page_key, site_key, path, vendor

),

final as (

    select
        page_key,
        site_key,
        path,
        coalesce(nullif(split_part(path, '/', 2), ''), '(root)') as section,
        len(list_filter(string_split(path, '/'), lambda segment: segment <> '')) as depth,
        max_by(title, (titled_date, vendor)) filter (title is not null) as title,
        min(first_seen_date) as first_seen_date,
        max(last_seen_date) as last_seen_date,
        count(*) as vendor_count,
        string_agg(vendor, ', ' order by vendor) as seen_by
    from by_vendor
    group by page_key, site_key, path

)

select * from final
