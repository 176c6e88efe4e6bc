with dates as (

    select cast(unnest(generate_series(
        date '{{ var("calendar_start") }}', date '{{ var("calendar_end") }}', interval 1 day
    )) as date) as calendar_date

),

final as (

    select
        calendar_date,
        year(calendar_date) as calendar_year,
        quarter(calendar_date) as calendar_quarter,
        month(calendar_date) as calendar_month,
        cast(date_trunc('month', calendar_date) as date) as month_start_date,
        dayofmonth(calendar_date) as day_of_month,
        dayofyear(calendar_date) as day_of_year,
        isodow(calendar_date) as iso_weekday,
        dayname(calendar_date) as weekday_name,
        isodow(calendar_date) >= 6 as is_weekend,
        isoyear(calendar_date) as iso_year,
        weekofyear(calendar_date) as iso_week,
        isoyear(calendar_date) || '-W' || lpad(cast(weekofyear(calendar_date) as varchar), 2, '0') as iso_week_label,
        cast(date_trunc('week', calendar_date) as date) as iso_week_start_date
    from dates

)

select * from final
