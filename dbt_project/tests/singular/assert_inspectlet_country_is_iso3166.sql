-- The document says ISO 639, which are languages; the wire has ISO 3166-1 alpha-2: EN, JA or SV would be languages. Warns.
{{ config(meta={'dagster': {'ref': {'name': 'stg_inspectlet__sessions'}}}, severity='warn') }}

select site_key, partition_date, country_code, count(*) as session_count
from {{ ref('stg_inspectlet__sessions') }}
where
    {{ in_window('partition_date', 1) }}
    and country_code is not null
    and lower(country_code) not in (
        select vendor_label from {{ ref('vocab_country') }} where length(vendor_label) = 2
    )
group by site_key, partition_date, country_code
