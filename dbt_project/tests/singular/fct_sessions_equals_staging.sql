-- Vertical integrity: per session vendor, site and local date, fct_sessions has exactly the sessions staging has.
with staged as (

    select 'smartlook' as vendor, site_key, partition_date, started_at from {{ ref('stg_smartlook__sessions') }}
    union all
    select 'inspectlet' as vendor, site_key, partition_date, started_at from {{ ref('stg_inspectlet__sessions') }}
    union all
    select 'kameleoon' as vendor, site_key, partition_date, started_at from {{ ref('stg_kameleoon__visits') }}

),

sites as (

    select site_key, timezone from {{ ref('dim_site') }}

),

expected as (

    select
        staged.vendor,
        staged.site_key,
        {{ local_date('staged.started_at', 'sites.timezone') }} as session_date_local,
        count(*) as session_count
    from staged
    inner join sites on staged.site_key = sites.site_key
    where {{ in_window('staged.partition_date', 1) }}
    group by all

),

found as (

    select vendor, site_key, session_date_local, count(*) as session_count
    from {{ ref('fct_sessions') }}
    where {{ in_window('session_date_local') }}
    group by all

)

select *
from (select * from expected where {{ in_window('session_date_local') }}) as expected
full join found using (vendor, site_key, session_date_local)
where coalesce(expected.session_count, 0) <> coalesce(found.session_count, 0)
