with scores as (

    select * from {{ ref('int_reconciliation_scores') }}

),

-- Five comparable dates up to this one, of the same baseline.
drifting as (

    select
        *,
        count(*) filter (abs(z_score) >= 3) over (
            partition by site_key, metric, vendor, is_comparable, baseline_start_date
            order by stat_date
            rows between 4 preceding and current row
        ) as far_dates
    from scores

),

spreads as (

    select
        site_key,
        stat_date,
        metric,
        100 * (
            greatest(max(value), max(anchor_value)) - least(min(value), min(anchor_value))
        ) / max(anchor_value) as spread_pct,
        count(*) + 1 as vendor_count
    from scores
    where is_comparable
    group by site_key, stat_date, metric

),

expected as (

    select site_key, stat_date, metric, count(*) filter (is_offered) + 1 as expected_vendor_count
    from scores
    group by site_key, stat_date, metric

),

judged as (

    select
        drifting.*,
        spreads.spread_pct,
        coalesce(spreads.vendor_count, 0) as vendor_count,
        expected.expected_vendor_count,
        case
            when not drifting.is_comparable then
                case
                    when drifting.is_offered and (drifting.value is null or drifting.reason = 'incomplete_partition') then 'missing'
                    else 'incomparable'
                end
            when drifting.is_break_day then 'break'
            when drifting.anchor_value < {{ var('low_volume_anchor') }} then 'low_volume'
            when drifting.z_score is null then 'incomparable'
            when drifting.far_dates >= 3 then 'drift'
            else 'ok'
        end as status
    from drifting
    inner join expected
        on drifting.site_key = expected.site_key and drifting.stat_date = expected.stat_date and drifting.metric = expected.metric
    left join spreads
        on drifting.site_key = spreads.site_key and drifting.stat_date = spreads.stat_date and drifting.metric = spreads.metric

),

final as (

    select
        site_key,
        stat_date,
        metric,
        vendor,
        '{{ var("reconciliation_anchor") }}' as anchor_vendor,
        'native' as basis,
        cast(value as bigint) as value,
        cast(anchor_value as bigint) as anchor_value,
        day_basis,
        case when is_comparable then value / anchor_value end as ratio,
        exp(median_log_ratio) as median_ratio_28d,
        mad_log_ratio,
        z_score,
        spread_pct,
        cast(vendor_count as bigint) as vendor_count,
        cast(expected_vendor_count as bigint) as expected_vendor_count,
        anchor_value * exp(median_log_ratio - 3 * scale) as expected_low,
        anchor_value * exp(median_log_ratio + 3 * scale) as expected_high,
        status,
        case
            when not is_comparable then reason
            when status = 'break' then if(change_share < 0, 'ratio_fell', 'ratio_rose')
            when status = 'low_volume' then 'anchor_below_' || {{ var('low_volume_anchor') }}
            when status = 'incomparable' then 'in_training'
            when status = 'drift' then if(z_score < 0, 'ratio_low', 'ratio_high')
            when abs(z_score) >= 3 then 'one_odd_date'
        end as reason,
        change_point_date,
        change_share,
        case
            when deviation is null then null
            when abs(exp(deviation) - 1) <= 0.05 then 'within_5_pct'
            when abs(exp(deviation) - 1) <= 0.10 then 'within_10_pct'
            when abs(exp(deviation) - 1) <= 0.25 then 'within_25_pct'
            else 'beyond_25_pct'
        end as band
    from judged

)

select * from final
