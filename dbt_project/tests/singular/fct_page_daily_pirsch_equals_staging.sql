-- Vertical integrity: what Pirsch reports of a path it lists under one title comes through unchanged, measure by measure.
with reported as (

    select site_key, stat_date, path, visitors, views, sessions, bounces, entries, exits, entry_rate, exit_rate
    from {{ ref('stg_pirsch__pages') }}
    where {{ in_window('partition_date') }}
    qualify count(*) over (partition by site_key, stat_date, path) = 1

),

published as (

    select *
    from {{ ref('fct_page_daily') }}
    where vendor = 'pirsch' and not is_other and {{ in_window('stat_date') }}

)

select site_key, stat_date, path
from reported
left join published using (site_key, stat_date, path)
where
    published.path is null
    {% for measure in ['visitors', 'views', 'sessions', 'bounces', 'entries', 'exits', 'entry_rate', 'exit_rate'] %}
    or (reported.{{ measure }} is not null and published.{{ measure }} is distinct from reported.{{ measure }})
    {% endfor %}
