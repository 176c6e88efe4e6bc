{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='append_new_columns',
        meta={'window_column': 'stat_date'}
    )
}}

with counters as (

    {% for vendor in var('product_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__products_mapped') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

final as (

    select
        vendor,
        site_key,
        stat_date,
        sku,
        views,
        add_to_cart_quantity,
        bought_quantity as purchase_quantity,
        case when views > 0 then add_to_cart_quantity / views end as add_to_cart_per_view,
        case when views > 0 then bought_quantity / views end as purchases_per_view,
        date_basis,
        case when views = 0 then 'no_views' end as reason_null
    from counters
    where {{ in_window('stat_date') }}

)

select * from final
