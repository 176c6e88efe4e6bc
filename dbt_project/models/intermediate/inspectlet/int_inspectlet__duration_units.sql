with sessions as (

    select * from {{ ref('stg_inspectlet__sessions') }}
    where {{ in_window('partition_date', 2) }}

),

evidence as (

    select
        site_key,
        partition_date,
        abs(session_duration_raw / 1000 - epoch(ended_at - started_at)) as distance_if_milliseconds,
        abs(session_duration_raw - epoch(ended_at - started_at)) as distance_if_seconds
    from sessions
    where session_duration_raw > 0 and ended_at > started_at

),

votes as (

    select
        site_key,
        partition_date,
        count(*) as vote_count,
        avg(case when distance_if_milliseconds <= distance_if_seconds then 1.0 else 0.0 end) as share_milliseconds
    from evidence
    group by site_key, partition_date

),

decided as (

    select
        site_key,
        partition_date,
        vote_count,
        share_milliseconds,
        case
            when share_milliseconds >= 0.9 then 'milliseconds'
            when share_milliseconds <= 0.1 then 'seconds'
            else 'mixed'
        end as partition_unit
    from votes

)

select * from decided
