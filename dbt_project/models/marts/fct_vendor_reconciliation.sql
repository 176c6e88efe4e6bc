with days as (

    select * from {{ ref('int_reconciliation_days') }}

),

baselines as (

    select
        site_key,
        metric,
        vendor,
        cast(stat_date as date) as stat_date,
        cast(baseline_start_date as date) as baseline_start_date,
        cast(change_point_date as date) as change_point_date,
        change_share,
        is_break_day
    from {{ ref('int_reconciliation_baselines') }}

),

-- Half a count is added before the logarithm, so that a date of nothing has a finite one.
compared as (

    select
        days.*,
        baselines.baseline_start_date,
        baselines.change_point_date,
        baselines.change_share,
        coalesce(baselines.is_break_day, false) as is_break_day,
        case when days.is_comparable then ln((days.value + 0.5) / (days.anchor_value + 0.5)) end as log_ratio,
        sqrt(1 / greatest(days.value, 1) + 1 / greatest(days.anchor_value, 1)) as counting_noise
    from days
    left join baselines
        on
            days.site_key = baselines.site_key
            and days.metric = baselines.metric
            and days.vendor = baselines.vendor
            and days.stat_date = baselines.stat_date

),

-- The 28 dates before each date, of the same baseline; dates of the same weekday count twice.
history as (

    select
        today.site_key,
        today.metric,
        today.vendor,
        today.stat_date,
        earlier.stat_date as earlier_date,
        earlier.log_ratio,
        unnest(if(isodow(earlier.stat_date) = isodow(today.stat_date), [1, 2], [1])) as copy
    from compared as today
    inner join compared as earlier
        on
            today.site_key = earlier.site_key
            and today.metric = earlier.metric
            and today.vendor = earlier.vendor
            and earlier.stat_date between today.stat_date - 28 and today.stat_date - 1
            and earlier.baseline_start_date = today.baseline_start_date
    where today.is_comparable and earlier.is_comparable

),

medians as (

    select
        site_key,
        metric,
        vendor,
        stat_date,
        median(log_ratio) as median_log_ratio,
        count(distinct earlier_date) as training_days
    from history
    group by site_key, metric, vendor, stat_date

),

deviations as (

    select
        history.site_key,
        history.metric,
        history.vendor,
        history.stat_date,
        median(abs(history.log_ratio - medians.median_log_ratio)) as mad_log_ratio
    from history
    inner join medians
        on
            history.site_key = medians.site_key
            and history.metric = medians.metric
            and history.vendor = medians.vendor
            and history.stat_date = medians.stat_date
    group by all

),

scored as (

    select
        compared.*,
        coalesce(medians.training_days, 0) as training_days,
        medians.median_log_ratio,
        deviations.mad_log_ratio,
        sqrt(pow(greatest(1.4826 * deviations.mad_log_ratio, 0.02), 2) + pow(compared.counting_noise, 2)) as scale,
        compared.log_ratio - medians.median_log_ratio as deviation
    from compared
    left join medians
        on
            compared.site_key = medians.site_key
            and compared.metric = medians.metric
            and compared.vendor = medians.vendor
            and compared.stat_date = medians.stat_date
    left join deviations
        on
            compared.site_key = deviations.site_key
            and compared.metric = deviations.metric
            and compared.vendor = deviations.vendor
            and compared.stat_date = deviations.stat_date

),

trained as (

    select
        * replace (
            if(training_days >= {{ var('training_days') }}, median_log_ratio, null) as median_log_ratio,
            if(training_days >= {{ var('training_days') }}, mad_log_ratio, null) as mad_log_ratio,
            if(training_days >= {{ var('training_days') }}, scale, null) as scale,
            if(training_days >= {{ var('training_days') }}, deviation, null) as deviation
        ),
        if(training_days >= {{ var('training_days') }}, deviation / scale, null) as z_score
    from scored

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
    from trained

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
    from days
    where is_comparable
    group by site_key, stat_date, metric

),

expected as (

    select site_key, stat_date, metric, count(*) filter (is_offered) + 1 as expected_vendor_count
    from days
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
