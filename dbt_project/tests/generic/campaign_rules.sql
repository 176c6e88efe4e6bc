{#- Per vendor, site, date and of source, medium and campaign: `(unknown)` is no more than a share of the tagged sessions. -#}
{% test unknown_share_below(model, maximum) %}
    select vendor, site_key, utm_dimension,
        sum(coalesce(sessions, visitors_upper_bound)) filter (utm_value = '(unknown)')
        / sum(coalesce(sessions, visitors_upper_bound)) filter (utm_value <> '(none)') as unknown_share
    from {{ model }}
    where utm_dimension in ('source', 'medium', 'campaign') and {{ in_window('stat_date') }}
    group by vendor, site_key, utm_dimension
    having unknown_share > {{ maximum }}
{% endtest %}
