with pages as (

    select * from {{ ref('fct_page_daily') }}
    where not is_other

),

final as (

    select
        page_key,
        site_key,
        path,
        coalesce(nullif(split_part(path, '/', 2), ''), '(root)') as section,
        len(list_filter(string_split(path, '/'), lambda segment: segment <> '')) as depth,
        last(title order by stat_date, vendor) filter (title is not null) as title,
        min(stat_date) as first_seen_date,
        max(stat_date) as last_seen_date,
        count(distinct vendor) as vendor_count,
        string_agg(distinct vendor, ', ' order by vendor) as seen_by
    from pages
    group by page_key, site_key, path

)

select * from final
