{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'conversion_date_local'}
    )
}}

with unseen as (

    select * from {{ ref('int_conversions_unseen') }}
    where {{ in_window('conversion_date_local') }}

),

final as (

    select
        ---------- ids
        left({{ surrogate_key(['site_key', 'visitor_code', 'conversion_name', 'conversion_date_utc', 'conversion_number']) }}, 16)
            as conversion_nonce,
        site_key,
        visitor_code,
        conversion_name,

        ---------- times
        conversion_date_local,
        conversion_date_utc,
        converted_at_utc,

        ---------- measures
        conversion_number,
        revenue,

        ---------- lineage
        seen_by
    from unseen

)

select * from final
