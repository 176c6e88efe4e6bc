{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'session_date_local'}
    )
}}

with pages as (

    select * from {{ ref('int_pages_unioned') }}
    where {{ in_window('session_date_local') }}

),

final as (

    select
        ---------- ids
        {{ surrogate_key(['session_key', 'view_number']) }} as page_view_key,
        session_key,
        {{ page_key('site_key', 'path') }} as page_key,
        vendor,
        site_key,

        ---------- times
        session_date_local,
        viewed_date_local,
        viewed_at_utc,

        ---------- where in the session
        view_number,
        is_entry,
        is_exit,
        seconds_on_page,

        ---------- what
        url,
        path,
        title
    from pages

)

select * from final
