{{ config(materialized='table') }}

-- Each date's log-ratio against the 28 dates before it in the same baseline.
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

)

select * from trained
