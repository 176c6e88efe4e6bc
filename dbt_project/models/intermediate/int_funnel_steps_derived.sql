with recursive pages as (

    -- Views without times have no order across a date's visits.
    select
        vendor,
        site_key,
        session_date_local as stat_date,
        coalesce(vendor_visitor_id, session_key) as visitor,
        path,
        viewed_at_utc
    from {{ ref('int_pages_unioned') }}
    where viewed_at_utc is not null

),

steps as (

    select * from {{ ref('funnel_steps') }}

),

-- A visit belongs to the date it began on, and a funnel is walked on one date.
walked as (

    select
        pages.vendor,
        pages.site_key,
        steps.funnel_key,
        pages.stat_date,
        pages.visitor,
        steps.step_number,
        pages.viewed_at_utc
    from pages
    inner join steps
        on
            pages.site_key = coalesce(steps.site_key, pages.site_key)
            and regexp_matches(pages.path, steps.path_pattern)

),

-- Step n counts where it was seen at or after the earliest moment step n-1 was reached: order matters, detours do not.
reached as (

    select vendor, site_key, funnel_key, stat_date, visitor, step_number, min(viewed_at_utc) as reached_at_utc
    from walked
    where step_number = 1
    group by all

    union all

    select
        walked.vendor,
        walked.site_key,
        walked.funnel_key,
        walked.stat_date,
        walked.visitor,
        walked.step_number,
        min(walked.viewed_at_utc) as reached_at_utc
    from walked
    inner join reached
        on
            walked.vendor = reached.vendor
            and walked.site_key = reached.site_key
            and walked.funnel_key = reached.funnel_key
            and walked.stat_date = reached.stat_date
            and walked.visitor = reached.visitor
            and walked.step_number = reached.step_number + 1
            and walked.viewed_at_utc >= reached.reached_at_utc
    group by all

),

counted as (

    select vendor, site_key, funnel_key, stat_date, step_number, count(*) as visitors
    from reached
    group by vendor, site_key, funnel_key, stat_date, step_number

),

-- Nobody at step 3 is a row with 0, not a missing row; nobody at step 1 is a date without the funnel.
days as (

    select distinct vendor, site_key, funnel_key, stat_date
    from counted
    where {{ in_window('stat_date') }}

),

filled as (

    select
        days.vendor,
        days.site_key,
        days.funnel_key,
        days.stat_date,
        steps.step_number,
        steps.step_key,
        coalesce(counted.visitors, 0) as visitors
    from days
    inner join steps
        on days.funnel_key = steps.funnel_key and days.site_key = coalesce(steps.site_key, days.site_key)
    left join counted
        on
            days.vendor = counted.vendor
            and days.site_key = counted.site_key
            and days.funnel_key = counted.funnel_key
            and days.stat_date = counted.stat_date
            and steps.step_number = counted.step_number

)

select * from filled
