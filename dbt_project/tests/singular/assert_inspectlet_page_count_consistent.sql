-- num_pages and the list of pages tell the same number; the vendor's own sample does not. Warns.
{{ config(severity='warn') }}

select site_key, wid, sid, num_pages, listed_page_count
from {{ ref('stg_inspectlet__sessions') }}
where {{ in_window('partition_date', 1) }} and num_pages <> listed_page_count
