{{ config(materialized='table') }}

with rules as (

    select rule_number, channel, channel_family, rule
    from (values
        {% for channel, family, condition, rule in channel_rules() -%}
        ({{ loop.index }}, '{{ channel }}', '{{ family }}', '{{ rule }}'){{ ',' if not loop.last }}
        {% endfor %}
    ) as listed (rule_number, channel, channel_family, rule)

),

final as (

    select
        channel,
        any_value(channel_family) as channel_family,
        cast(min(rule_number) as integer) as first_rule_number,
        string_agg(rule_number || ': ' || rule, '; ' order by rule_number) as rules
    from rules
    group by channel

)

select * from final
