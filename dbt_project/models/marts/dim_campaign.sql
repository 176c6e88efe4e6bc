{{ config(materialized='table') }}

with days as (

    select * from {{ ref('fct_campaign_daily') }}

),

spelled as (

    select
        campaign_key,
        string_agg(distinct spelling, ' | ' order by spelling) as spellings,
        count(distinct spelling) as spelling_count
    from (
        select campaign_key, unnest(string_split(spellings, ' | ')) as spelling
        from days
    )
    group by campaign_key

),

final as (

    select
        days.campaign_key,
        days.utm_dimension,
        days.utm_value,
        any_value(spelled.spellings) as spellings,
        coalesce(any_value(spelled.spelling_count), 0) as spelling_count,
        string_agg(distinct days.vendor, ', ' order by days.vendor) as vendors,
        string_agg(distinct days.site_key, ', ' order by days.site_key) as sites,
        min(days.stat_date) as first_seen_date,
        max(days.stat_date) as last_seen_date
    from days
    left join spelled on days.campaign_key = spelled.campaign_key
    group by days.campaign_key, days.utm_dimension, days.utm_value

)

select * from final
