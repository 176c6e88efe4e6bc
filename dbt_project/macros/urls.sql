{#-
    URLs and campaign words.
    Belongs here: taking a URL apart the same way for every vendor, and dropping what must not reach a mart.
    Does not belong here: which vendor field holds a URL.

    One regular expression a value, and string functions before it: on 420,000 sessions nested expressions inside a list lambda
    took 26 s where one `regexp_extract` takes under 1 s. `\/` is PHP's escaped slash.
-#}

{#- Without fragment, with slashes un-escaped. -#}
{% macro url_plain(url) -%}
    split_part(replace({{ url }}, '\/', '/'), '#', 1)
{%- endmacro %}

{#- What follows `://`, or the whole text when there is no scheme. -#}
{% macro url_without_scheme(plain_url) -%}
    split_part({{ plain_url }}, '://', -1)
{%- endmacro %}

{#- Lower-case host without user info, port and www.; NULL without a scheme. -#}
{% macro url_host(url) -%}
    nullif(lower(regexp_extract({{ url }}, '^[A-Za-z][A-Za-z0-9+.-]*:\\?/\\?/(?:[^/?#@]*@)?(?:[Ww]{3}\.)?([^/\\?#:]+)', 1)), '')
{%- endmacro %}

{#- Path with its case kept; `/` when the URL has a host only. -#}
{% macro url_path(url) -%}
    case when {{ url }} is not null
        then coalesce(nullif(regexp_extract({{ url }}, '^(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)?([^?#]*)', 1), ''), '/')
    end
{%- endmacro %}

{#- What makes two page views the same page: host and path, without scheme, www., query and fragment. -#}
{% macro page_identity(url) -%}
    regexp_extract({{ url }}, '^(?:[A-Za-z][A-Za-z0-9+.-]*://)?(?:[Ww]{3}\.)?([^?#]*)', 1)
{%- endmacro %}

{#- Decoded value of one query parameter (`+` is a space); NULL when absent or empty. -#}
{% macro query_param(url, name) -%}
    case when contains({{ url }}, '{{ name }}=')
        then nullif(trim(url_decode(replace(regexp_extract({{ url }}, '[?&]{{ name }}=([^&#]*)', 1), '+', ' '))), '')
    end
{%- endmacro %}

{#-
    The URL a mart may hold: scheme and host in lower case, no user info, no default port, no fragment, no parameter of `exclude_params`.
    The path keeps its case, the remaining query its order.
-#}
{% macro clean_url(url) -%}
    {%- set plain = url_plain(url) -%}
    {%- set location = "split_part(" ~ plain ~ ", '?', 1)" -%}
    {%- set query = "substr(" ~ plain ~ ", length(" ~ location ~ ") + 1)" -%}
    {%- set names = var('exclude_params') | join('|') -%}
    {%- set kept = "regexp_replace(" ~ query ~ ", '([?&])(?:" ~ names ~ ")=[^&]*', '\\1', 'gi')" -%}
    {%- set tidy = "regexp_replace(regexp_replace(regexp_replace(" ~ kept ~ ", '&&+', '&', 'g'), '[?]&+', '?'), '[?&]+$', '')" -%}
    {{ clean_location(location) }} || case when contains({{ plain }}, '?') then {{ tidy }} else '' end
{%- endmacro %}

{#- Scheme, host, port and path of a URL without query: host in lower case, no user info, no default port. -#}
{% macro clean_location(location) -%}
    {%- set scheme = "lower(split_part(" ~ location ~ ", '://', 1))" -%}
    {%- set authority = "lower(split_part(split_part(" ~ url_without_scheme(location) ~ ", '/', 1), '@', -1))" -%}
    {%- set no_port = "regexp_replace(" ~ authority ~ ", if(" ~ scheme ~ " = 'https', ':443$', ':80$'), '')" -%}
    {%- set rest = "substr(" ~ url_without_scheme(location) ~ ", length(split_part(" ~ url_without_scheme(location) ~ ", '/', 1)) + 1)" -%}
    case when contains({{ location }}, '://')
        then {{ scheme }} || '://' || case when contains({{ authority }}, ':') then {{ no_port }} else {{ authority }} end || {{ rest }}
        else {{ location }}
    end
{%- endmacro %}
