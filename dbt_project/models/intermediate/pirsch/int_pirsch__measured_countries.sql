with countries as (

    select
        site_key,
        stat_date,
        lower(trim(value)) as vendor_label,
        visitors
    from {{ ref('stg_pirsch__breakdowns') }}
    where dimension = 'country' and {{ in_window('partition_date') }}

),

measured as (

    select
        countries.site_key,
        countries.stat_date,
        coalesce(vocab.country_code, 'ZZ') as country_code,
        sum(countries.visitors) as visitors
    from countries
    left join {{ ref('vocab_country') }} as vocab on countries.vendor_label = vocab.vendor_label
    group by all

)

select * from measured
