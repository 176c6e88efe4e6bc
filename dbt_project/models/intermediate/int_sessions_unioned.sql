with unioned as (

    {% for vendor in var('session_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__sessions_mapped') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

sites as (

    select
        site_key,
        any_value(timezone) as timezone,
        any_value(hostname) as hostname
    from {{ ref('int_sites_mapped') }}
    group by site_key

),

located as (

    select
        {{ surrogate_key(['unioned.vendor', 'unioned.site_key', 'unioned.vendor_session_id']) }} as session_key,
        unioned.*,
        {{ local_date('unioned.started_at_utc', 'sites.timezone') }} as session_date_local,
        sites.hostname as own_host
    from unioned
    inner join sites on unioned.site_key = sites.site_key
    -- A vendor that moves a session's start over midnight leaves its old row in yesterday's partition until that is read again.
    qualify row_number() over (
        partition by unioned.vendor, unioned.site_key, unioned.vendor_session_id
        order by unioned.landed_at desc, unioned.partition_date desc
    ) = 1

)

select * from located
