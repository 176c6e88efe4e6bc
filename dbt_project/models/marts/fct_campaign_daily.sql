{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with words as (

    select * from {{ ref('int_campaign_words') }}
    where {{ in_window('stat_date') }}

),

revenue as (

    select session_key, sum(revenue) as revenue
    from {{ ref('int_conversions_unioned') }}
    where {{ in_window('filed_date_local', 1) }}
    group by session_key

),

from_sessions as (

    select
        words.vendor,
        words.site_key,
        words.stat_date,
        words.utm_dimension,
        words.utm_value,
        string_agg(distinct words.utm_raw, ' | ' order by words.utm_raw) as spellings,
        count(distinct words.utm_raw) as spelling_count,
        count(distinct words.visitor) as visitors,
        count(distinct words.visitor) as visitors_upper_bound,
        count(*) as sessions,
        count(*) filter (words.has_conversion) as converting_sessions,
        sum(revenue.revenue) as revenue,
        false as is_truncated
    from words
    left join revenue on words.session_key = revenue.session_key
    group by words.vendor, words.site_key, words.stat_date, words.utm_dimension, words.utm_value

),

reported as (

    {% for vendor in var('campaign_report_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__campaigns_reported') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

reported_words as (

    select
        reported.*,
        {{ campaign_word('reported.utm_raw', 'aliases.utm_value', 'reported.utm_dimension', 'false') }} as utm_value
    from reported
    left join {{ ref('utm_aliases') }} as aliases
        on reported.utm_dimension = aliases.utm_dimension and lower(trim(reported.utm_raw)) = aliases.alias
    where {{ in_window('reported.stat_date') }}

),

-- One visitor may have come by two spellings of a word, so where two were merged only the upper bound is known.
from_reports as (

    select
        vendor,
        site_key,
        stat_date,
        utm_dimension,
        utm_value,
        string_agg(utm_raw, ' | ' order by utm_raw) as spellings,
        count(*) as spelling_count,
        case when count(*) = 1 then any_value(visitors) end as visitors,
        sum(visitors) as visitors_upper_bound,
        sum(sessions) as sessions,
        cast(null as bigint) as converting_sessions,
        cast(null as decimal(18, 4)) as revenue,
        bool_or(is_truncated) as is_truncated
    from reported_words
    group by vendor, site_key, stat_date, utm_dimension, utm_value

),

unioned as (

    select * from from_sessions
    union all by name
    select * from from_reports

),

final as (

    select
        vendor,
        site_key,
        stat_date,
        utm_dimension,
        utm_value,
        {{ surrogate_key(['utm_dimension', 'utm_value']) }} as campaign_key,
        spellings,
        cast(spelling_count as integer) as spelling_count,
        cast(visitors as bigint) as visitors,
        cast(visitors_upper_bound as bigint) as visitors_upper_bound,
        cast(sessions as bigint) as sessions,
        cast(converting_sessions as bigint) as converting_sessions,
        cast(revenue as decimal(18, 4)) as revenue,
        is_truncated,
        nullif(concat_ws(
            ', ',
            case when visitors is null then 'visitors=spellings_not_additive' end,
            case when sessions is null then 'sessions=not_offered' end,
            case when converting_sessions is null then 'converting_sessions=needs_session_rows' end,
            case when revenue is null and converting_sessions is null then 'revenue=needs_session_rows'
                when revenue is null then 'revenue=none_told' end
        ), '') as reason_null
    from unioned

)

select * from final
