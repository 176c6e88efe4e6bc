{#-
    Words the reconciliation models share.
    Belongs here: the anchor's calendar, page groups, the part of an hour that lies in a span. Does not belong here: any vendor's field names.
-#}

{#- IANA zone of the anchor's dates: of `anchor_timezones` for the site, else what the vendor told with the date, else the site's own. -#}
{% macro anchor_timezone(site_key, told_timezone, site_timezone) -%}
    {%- set zones = var('anchor_timezones') -%}
    {%- if zones -%}
    case {{ site_key }}
        {% for site, zone in zones.items() -%}
        when '{{ site }}' then '{{ zone }}'
        {% endfor -%}
        else coalesce({{ told_timezone }}, {{ site_timezone }})
    end
    {%- else -%}
    coalesce({{ told_timezone }}, {{ site_timezone }})
    {%- endif -%}
{%- endmacro %}

{#- Pages by the first segment of their path: /product/a and /product/b are /product. What a deploy breaks has this shape. -#}
{% macro page_group(path) -%}
    '/' || split_part({{ path }}, '/', 2)
{%- endmacro %}

{#-
    The same of a URL, in one expression: nested ones inside a list lambda cost eight times as much. `\/` is PHP's escaped slash.
-#}
{% macro url_page_group(url) -%}
    '/' || regexp_extract({{ url }}, '^(?:[A-Za-z][A-Za-z0-9+.-]*:\\?/\\?/[^/\\?#]*)?(?:\\?/)?([^/\\?#]*)', 1)
{%- endmacro %}

{#- Part (0 to 1) of the hour from `hour_start` that lies at or after `span_start` and before `span_end`. -#}
{% macro share_of_hour(hour_start, span_start, span_end) -%}
    greatest(0, least(epoch({{ hour_start }}) + 3600, epoch({{ span_end }})) - greatest(epoch({{ hour_start }}), epoch({{ span_start }}))) / 3600
{%- endmacro %}
