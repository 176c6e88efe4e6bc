-- Cursors are temporary and must not be stored: no text of any Smartlook row carries one. Columns are asked of the database.
{{ config(meta={'dagster': {'ref': {'name': 'stg_smartlook__sessions'}}}, tags=['thorough']) }}

{% for table in ['sessions', 'visitors', 'events', 'event_daily', 'funnels'] %}
{%- set relation = ref('stg_smartlook__' ~ table) %}
{%- set texts = [] %}
{%- if execute %}
{%- for column in adapter.get_columns_in_relation(relation) if 'CHAR' in column.data_type | upper %}
{%- do texts.append(column.name) %}
{%- endfor %}
{%- endif %}
select '{{ table }}' as table_name, site_key, partition_date
from {{ relation }}
where
    {{ in_window('partition_date', 1) }}
    and (
        false
        {%- for name in texts %}
        or regexp_matches(cast({{ name }} as varchar), '^/?(api/)?[A-Za-z0-9/._-]*[?&](after|before)=')
        {%- endfor %}
    )
{{ 'union all' if not loop.last }}
{% endfor %}
