{%- set components = [
    'incomplete_partition', 'day_boundary', 'definition', 'bots', 'sampling', 'consent', 'tag_missing', 'unexplained'
] %}

with effects as (

    select * from {{ ref('int_waterfall_effects') }}

),

steps as (

    {% for component in components %}
    select
        site_key,
        stat_date,
        metric,
        vendor,
        '{{ component }}' as component,
        cast({{ loop.index }} as integer) as step_number,
        cast({{ component }} as decimal(18, 3)) as effect,
        cast(gap as bigint) as gap,
        cast(anchor_value as bigint) as anchor_value,
        cast(vendor_value as bigint) as vendor_value,
        {% if component == 'incomplete_partition' -%}
        if(is_complete, 'complete', 'whole_gap')
        {%- elif component == 'unexplained' -%}
        if(is_complete and not is_taken_apart, 'no_session_rows', 'remainder')
        {%- else -%}
        case
            when not is_complete then 'not_asked'
            when not is_taken_apart then 'no_session_rows'
            {% if component in ('day_boundary', 'definition', 'bots') -%}
            else 'counted'
            {%- elif component == 'sampling' -%}
            when is_flat then 'flat_after_last_recording'
            else 'not_flat'
            {%- elif component == 'consent' -%}
            else 'ratio_by_country'
            {%- elif component == 'tag_missing' -%}
            when is_untagged then 'pages_only_the_anchor_saw'
            else 'all_pages_seen'
            {%- endif %}
        end
        {%- endif %} as method
    from effects
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

final as (

    select
        site_key,
        stat_date,
        metric,
        vendor,
        '{{ var("reconciliation_anchor") }}' as anchor_vendor,
        component,
        step_number,
        effect,
        gap,
        anchor_value,
        vendor_value,
        method
    from steps

)

select * from final
