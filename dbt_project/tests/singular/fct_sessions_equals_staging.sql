-- Vertical integrity: per session vendor, site and local date, fct_sessions has exactly the session ids staging has.
with staged as (

    select 'smartlook' as vendor, site_key, partition_date, started_at, landed_at, session_id as natural_key from {{ ref('stg_smartlook__sessions') }}
    union all
    select 'inspectlet' as vendor, site_key, partition_date, started_at, landed_at, wid || '-' || sid as natural_key from {{ ref('stg_inspectlet__sessions') }}
    union all
    select
        'kameleoon' as vendor,
        site_key,
        partition_date,
        started_at,
        landed_at,
        visitor_code || '-' || epoch_ms(started_at) as natural_key
    from {{ ref('stg_kameleoon__visits') }}

),

newest as (

    select *
    from staged
    where {{ in_window('partition_date', 2) }}
    qualify row_number() over (
        partition by vendor, site_key, natural_key
        order by landed_at desc, partition_date desc
    ) = 1

),

sites as (

    select site_key, timezone from {{ ref('dim_site') }}

),

expected as (

    select
        newest.vendor,
        newest.site_key,
        {{ local_date('newest.started_at', 'sites.timezone') }} as session_date_local,
        count(*) as session_count
    from newest
    inner join sites on newest.site_key = sites.site_key
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
