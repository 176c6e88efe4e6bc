-- The document prints the path of plain systems for their versions: an answer of that path would have systems for values. Warns.
{{ config(meta={'dagster': {'ref': {'name': 'stg_pirsch__breakdowns'}}}, severity='warn') }}

with systems as (

    select distinct site_key, stat_date, lower(value) as system
    from {{ ref('stg_pirsch__breakdowns') }}
    where dimension = 'os' and value <> '' and {{ in_window('partition_date') }}

),

versions as (

    select site_key, stat_date, parent_value, value
    from {{ ref('stg_pirsch__breakdowns') }}
    where dimension = 'os_version' and {{ in_window('partition_date') }}

)

select versions.*
from versions
inner join systems
    on
        versions.site_key = systems.site_key
        and versions.stat_date = systems.stat_date
        and lower(versions.value) = systems.system
