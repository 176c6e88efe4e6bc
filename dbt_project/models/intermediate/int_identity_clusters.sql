{{ config(materialized='table') }}

with recursive edges as (

    select
        concat_ws('|', key_version, site_key, vendor, vendor_visitor_id) as visitor_node,
        person_ref as person_node,
        *
    from {{ ref('int_identity_edges') }}

),

-- Ambiguous browsers and references of a crowd link nobody: through them, strangers would become one person.
links as (

    select visitor_node as node, person_node as neighbour
    from edges
    where not is_ambiguous and not is_generic
    union all
    select person_node as node, visitor_node as neighbour
    from edges
    where not is_ambiguous and not is_generic

),

-- The smallest name of a component reaches all of it: one row a node, lowered until nothing changes.
labelled(node, label) using key (node) as (

    select node, min(least(node, neighbour)) as label
    from links
    group by node

    union

    select links.neighbour as node, min(labelled.label) as label
    from labelled
    inner join links on labelled.node = links.node
    inner join recurring.labelled as known on links.neighbour = known.node
    where labelled.label < known.label
    group by links.neighbour

),

sized as (

    select
        label,
        count(*) as visitor_count
    from labelled
    where node in (select visitor_node from edges)
    group by label

),

visitors as (

    select
        site_key,
        key_version,
        vendor,
        vendor_visitor_id,
        visitor_node,
        bool_or(is_ambiguous) as is_ambiguous,
        bool_and(is_generic) as is_generic,
        min(first_seen_at_utc) as first_seen_at_utc,
        max(last_seen_at_utc) as last_seen_at_utc,
        string_agg(distinct evidence, ', ' order by evidence) as evidence
    from edges
    group by site_key, key_version, vendor, vendor_visitor_id, visitor_node

),

final as (

    select
        visitors.site_key,
        visitors.key_version,
        visitors.vendor,
        visitors.vendor_visitor_id,
        case
            when sized.visitor_count <= {{ var('identity_cluster_cap') }} then {{ surrogate_key(['labelled.label']) }}
        end as person_key,
        sized.visitor_count,
        visitors.is_ambiguous,
        case
            when visitors.is_ambiguous then 'shared_browser'
            when visitors.is_generic then 'login_of_a_crowd'
            when sized.visitor_count > {{ var('identity_cluster_cap') }} then 'too_many_visitors'
        end as quarantine_reason,
        visitors.evidence,
        visitors.first_seen_at_utc,
        visitors.last_seen_at_utc
    from visitors
    left join labelled on visitors.visitor_node = labelled.node
    left join sized on labelled.label = sized.label

)

select * from final
