{{ config(materialized='table') }}

with sightings as (

    -- Also here, where the past is read: a policy that became none unlinks at once what was linked before.
    select * from {{ ref('int_identity_sightings') }}
    where {{ links_identities() }}

),

edges as (

    select
        site_key,
        split_part(person_ref, ':', 1) as key_version,
        vendor,
        vendor_visitor_id,
        person_ref,
        string_agg(distinct evidence, ', ' order by evidence) as evidence,
        min(first_seen_at_utc) as first_seen_at_utc,
        max(last_seen_at_utc) as last_seen_at_utc,
        cast(sum(sighting_count) as bigint) as sighting_count
    from sightings
    group by site_key, vendor, vendor_visitor_id, person_ref

),

-- One browser, two logins of one kind (two e-mails, two login ids): two people, and the browser tells nothing about either.
shared as (

    select distinct site_key, key_version, vendor, vendor_visitor_id
    from (
        select
            site_key,
            split_part(person_ref, ':', 1) as key_version,
            vendor,
            vendor_visitor_id
        from sightings
        group by site_key, key_version, vendor, vendor_visitor_id, evidence
        having count(distinct person_ref) > 1
    )

),

final as (

    select
        edges.site_key,
        edges.key_version,
        edges.vendor,
        edges.vendor_visitor_id,
        edges.person_ref,
        edges.evidence,
        edges.first_seen_at_utc,
        edges.last_seen_at_utc,
        edges.sighting_count,
        shared.vendor is not null as is_ambiguous,
        count(*) over (partition by edges.site_key, edges.person_ref) > {{ var('identity_cluster_cap') }} as is_generic
    from edges
    left join shared using (site_key, key_version, vendor, vendor_visitor_id)

)

select * from final
