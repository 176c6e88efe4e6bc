{#-
    URLs and campaign words.
    Belongs here: taking a URL apart the same way for every vendor, and dropping what must not reach a mart.
    Does not belong here: which vendor field holds a URL.
-#}

{#- Lower-case host without www. and port; NULL without a host. -#}
{% macro url_host(url) -%}
    nullif(regexp_replace(lower(regexp_extract({{ url }}, '^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]+)', 1)), '^www\.', ''), '')
{%- endmacro %}

{#- Path with its case kept; `/` when the URL has a host only. -#}
{% macro url_path(url) -%}
    case when {{ url }} is not null
        then coalesce(nullif(regexp_extract({{ url }}, '^(?:[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*)?([^?#]*)', 1), ''), '/')
    end
{%- endmacro %}

{#- Decoded value of one query parameter (`+` is a space); NULL when absent or empty. -#}
{% macro query_param(url, name) -%}
    nullif(trim(url_decode(replace(regexp_extract({{ url }}, '[?&]{{ name }}=([^&#]*)', 1, 'i'), '+', ' '))), '')
{%- endmacro %}

{#-
    The URL a mart may hold: scheme and host in lower case, no user info, no default port, no fragment, no parameter of `exclude_params`.
    `\/` is un-escaped; the path keeps its case, the remaining query its order.
-#}
{% macro clean_url(url) -%}
    {%- set plain = "regexp_replace(replace(" ~ url ~ ", '\\/', '/'), '#.*$', '')" -%}
    {%- set origin = "lower(regexp_extract(" ~ plain ~ ", '^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?]*'))" -%}
    {%- set no_user = "regexp_replace(" ~ origin ~ ", '//[^@]*@', '//')" -%}
    {%- set no_port = "regexp_replace(" ~ no_user ~ ", '^(http://[^:]+):80$|^(https://[^:]+):443$', '\\1\\2')" -%}
    {%- set rest = "regexp_replace(" ~ plain ~ ", '^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?]*', '')" -%}
    {%- set names = var('exclude_params') | join('|') -%}
    {%- set kept = "regexp_replace(" ~ rest ~ ", '([?&])(?:" ~ names ~ ")=[^&]*', '\\1', 'gi')" -%}
    {%- set tidy = "regexp_replace(regexp_replace(regexp_replace(" ~ kept ~ ", '&&+', '&', 'g'), '[?]&+', '?'), '[?&]+$', '')" -%}
    ({{ no_port }} || {{ tidy }})
{%- endmacro %}

{#- What makes two page views the same page: host and path, without query and fragment, host without www. -#}
{% macro page_identity(url) -%}
    coalesce({{ url_host(url) }}, '') || {{ url_path(url) }}
{%- endmacro %}
