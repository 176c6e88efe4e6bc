{{ config(materialized='table') }}

with conversions as (

    select * from {{ ref('int_conversions_unioned') }}

),

-- All of the past, not a window: what a reversal takes back may be weeks older, and may arrive after the reversal did.
matched as (

    select
        reversals.conversion_key,
        originals.conversion_key as original_conversion_key
    from conversions as reversals
    inner join conversions as originals
        on
            reversals.vendor = originals.vendor
            and reversals.site_key = originals.site_key
            and reversals.vendor_visitor_id = originals.vendor_visitor_id
            and reversals.goal_key = originals.goal_key
            and originals.converted_at_utc <= reversals.converted_at_utc
            and originals.converted_at_utc >= reversals.converted_at_utc - interval {{ var('reversal_days') }} day
    where reversals.is_reversal and not originals.is_reversal
    qualify row_number() over (
        partition by reversals.conversion_key
        order by
            coalesce(originals.revenue = -reversals.revenue, false) desc,
            originals.converted_at_utc desc,
            originals.conversion_key
    ) = 1

),

final as (

    select
        ---------- ids
        conversions.conversion_key,
        conversions.vendor,
        conversions.site_key,
        conversions.vendor_conversion_id,
        conversions.goal_key,
        conversions.vendor_goal,
        conversions.session_key,
        conversions.vendor_visitor_id,

        ---------- times
        conversions.converted_at_utc,
        conversions.stat_date,
        conversions.filed_date_local,
        conversions.partition_date,

        ---------- measures
        conversions.revenue,
        conversions.currency_code,
        conversions.sample_rate,

        ---------- reversals
        conversions.is_reversal,
        matched.original_conversion_key,
        reversed.conversion_key is not null as is_reversed
    from conversions
    left join matched on conversions.conversion_key = matched.conversion_key
    left join (
        select original_conversion_key as conversion_key
        from matched
        group by original_conversion_key
    ) as reversed on conversions.conversion_key = reversed.conversion_key

)

select * from final
