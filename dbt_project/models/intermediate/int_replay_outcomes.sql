{%- set steps = var('replay_steps') %}
{%- set names = steps.keys() | list %}

with signals as (

    {% for vendor in var('replay_vendors') %}
    select * from {{ ref('int_' ~ vendor ~ '__replay_signals') }}
    {{ 'union all by name' if not loop.last }}
    {% endfor %}

),

recorded as (

    select
        sessions.*,
        signals.link_ref,
        signals.link_host,
        signals.error_count,
        signals.rage_click_count,
        list_transform(sessions.distinct_pages, lambda page: regexp_replace(page, '^[^/]*', '')) as paths
    from {{ without_suspected_bots(ref('int_sessions_enriched')) }} as sessions
    inner join signals
        on
            sessions.vendor = signals.vendor
            and sessions.site_key = signals.site_key
            and sessions.vendor_session_id = signals.vendor_session_id
            and sessions.partition_date = signals.partition_date
    where {{ in_window('sessions.session_date_local') }}

),

stepped as (

    select
        *,
        case
            {% for step in names | reverse -%}
            when len(list_filter(paths, lambda path: regexp_matches(path, '{{ steps[step] }}'))) > 0 then '{{ step }}'
            {% endfor -%}
        end as furthest_step
    from recorded

),

judged as (

    select
        *,
        coalesce(has_conversion, false) or coalesce(furthest_step = '{{ names[-1] }}', false) as is_converted
    from stepped

),

shown as (

    {% for vendor in var('exposure_vendors') %}
    select session_key, experiment_id from {{ ref('int_' ~ vendor ~ '__session_exposures') }}
    {{ 'union' if not loop.last }}
    {% endfor %}

),

exposed as (

    select session_key, list('exposed_' || experiment_id order by experiment_id) as exposures
    from shown
    group by session_key

),

listed as (

    select
        judged.*,
        list_concat(
            [
                case when is_converted then 'converted' end,
                case when not is_converted then 'dropped_' || furthest_step end,
                case
                    when {{ is_common_bounce('coalesce(distinct_page_count, page_count)', 'is_converted', 'duration_seconds') }}
                        then 'bounced'
                end,
                case when error_count > 0 then 'errored' end,
                case when rage_click_count > 0 then 'rage_clicked' end
            ],
            coalesce(exposed.exposures, [])
        ) as outcomes
    from judged
    left join exposed on judged.session_key = exposed.session_key

),

unnested as (

    select
        session_key,
        vendor,
        site_key,
        session_date_local,
        partition_date,
        started_at_utc,
        duration_seconds,
        page_count,
        is_starred,
        note_count,
        link_ref,
        link_host,
        unnest(outcomes) as outcome
    from listed

)

select * from unnested
where outcome is not null
