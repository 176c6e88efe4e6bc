{%- set words = ['source', 'medium', 'campaign', 'content', 'term'] -%}

with sessions as (

    select
        session_key,
        vendor,
        site_key,
        session_date_local as stat_date,
        coalesce(vendor_visitor_id, vendor_session_id) as visitor,
        has_conversion,
        {% for word in words %}utm_{{ word }}_raw, {% endfor %}
        {% for word in words %}utm_{{ word }}_raw is not null{{ ' or ' if not loop.last }}{% endfor %} as is_tagged
    from {{ ref('int_sessions_enriched') }}

),

long as (

    {% for word in words %}
    select
        session_key,
        vendor,
        site_key,
        stat_date,
        visitor,
        has_conversion,
        is_tagged,
        '{{ word }}' as utm_dimension,
        utm_{{ word }}_raw as utm_raw
    from sessions
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

worded as (

    select
        long.*,
        {{ campaign_word('long.utm_raw', 'aliases.utm_value', 'long.utm_dimension', 'long.is_tagged') }} as utm_value
    from long
    left join {{ ref('utm_aliases') }} as aliases
        on long.utm_dimension = aliases.utm_dimension and lower(trim(long.utm_raw)) = aliases.alias

)

select * from worded
