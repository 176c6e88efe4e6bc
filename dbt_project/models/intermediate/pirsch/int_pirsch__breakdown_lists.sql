{#- A visitor is a hash of address and user agent, so it has one value of what follows from those, and people add up there. -#}
{%- set one_value_a_visitor = ['os', 'os_version', 'browser', 'browser_version', 'country', 'city'] -%}
{%- set one_value_a_session = ['referrer'] -%}

with listed as (

    select * from {{ ref('stg_pirsch__breakdowns') }}
    where {{ in_window('partition_date') }}

),

totals as (

    select * from {{ ref('stg_pirsch__daily_stats') }}
    where {{ in_window('partition_date') }}

),

-- What a list of a hundred values leaves out, where its values add up. A rest below zero was read at another moment.
rests as (

    select
        listed.site_key,
        listed.stat_date,
        listed.dimension,
        any_value(totals.visitors) - sum(listed.visitors) as visitors_left,
        any_value(totals.sessions) - sum(listed.sessions) as sessions_left,
        any_value(totals.bounces) - sum(listed.bounces) as bounces_left,
        any_value(totals.visitors) as visitors_total
    from listed
    left join totals on listed.site_key = totals.site_key and listed.stat_date = totals.stat_date
    group by listed.site_key, listed.stat_date, listed.dimension
    having bool_or(listed.possibly_truncated)

),

others as (

    select
        site_key,
        stat_date,
        dimension,
        '' as parent_value,
        '(other)' as value,
        true as is_other,
        true as is_list_cut,
        case when dimension in ({{ "'" ~ one_value_a_visitor | join("', '") ~ "'" }}) and visitors_left >= 0 then visitors_left end
            as visitors,
        case when dimension in ({{ "'" ~ one_value_a_session | join("', '") ~ "'" }}) and sessions_left >= 0 then sessions_left end
            as sessions,
        case when dimension in ({{ "'" ~ one_value_a_session | join("', '") ~ "'" }}) and bounces_left >= 0 then bounces_left end
            as bounces,
        case when dimension in ({{ "'" ~ one_value_a_visitor | join("', '") ~ "'" }}) then 'list_exceeds_total' else 'not_additive' end
            as visitors_reason,
        case when dimension in ({{ "'" ~ one_value_a_session | join("', '") ~ "'" }}) then 'list_exceeds_total' else 'not_offered' end
            as sessions_reason,
        visitors_total
    from rests

),

values_listed as (

    select
        site_key,
        stat_date,
        dimension,
        parent_value,
        value,
        false as is_other,
        possibly_truncated as is_list_cut,
        visitors,
        sessions,
        bounces,
        relative_visitors as share,
        {{ url_host('referrer_example') }} as referrer_host,
        'not_reported' as visitors_reason,
        if(dimension = 'referrer', 'not_reported', 'not_offered') as sessions_reason
    from listed

),

unioned as (

    select * from values_listed
    union all by name
    select * exclude (visitors_total), visitors / nullif(visitors_total, 0) as share from others

),

mapped as (

    select
        'pirsch' as vendor,
        unioned.* exclude (referrer_host),
        case
            when unioned.is_other then unioned.value
            when unioned.dimension = 'country' then coalesce(countries.country_code, 'ZZ')
            when unioned.dimension = 'os' then coalesce(systems.os_family, 'other')
            when unioned.dimension = 'browser' then coalesce(browsers.browser_family, 'other')
            when unioned.value = '' then '(none)'
            when unioned.dimension = 'referrer' then coalesce(unioned.referrer_host, lower(unioned.value))
            when starts_with(unioned.dimension, 'utm_') then lower(trim(unioned.value))
            else unioned.value
        end as value_norm
    from unioned
    left join {{ ref('vocab_country') }} as countries on lower(trim(unioned.value)) = countries.vendor_label
    left join {{ ref('vocab_os') }} as systems on lower(trim(unioned.value)) = systems.vendor_label
    left join {{ ref('vocab_browser') }} as browsers on lower(trim(unioned.value)) = browsers.vendor_label

)

select * from mapped
