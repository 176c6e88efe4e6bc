{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with told as (

    {% for vendor in var('aggregate_vendors') %}
    select *, '{{ vendor }}' as vendor from {{ ref('int_' ~ vendor ~ '__zones_told') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

final as (

    select site_key, stat_date, timezone
    from told
    where vendor = '{{ var("reconciliation_anchor") }}' and {{ in_window('stat_date') }}

)

select * from final
