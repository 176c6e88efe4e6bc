with definitions as (

    select * from {{ ref('metric_definitions') }}

),

final as (

    select
        {{ surrogate_key(['metric', 'vendor', 'basis']) }} as definition_key,
        metric,
        vendor,
        basis,
        is_offered,
        reason_null,
        definition,
        formula,
        source_url
    from definitions

)

select * from final
