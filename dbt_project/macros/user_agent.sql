{#- Operating system family a user agent names, as a vocab_os label. Order matters: Android says Linux, an iPhone says Mac OS X. -#}
{% macro os_from_user_agent(user_agent) -%}
    case
        when {{ user_agent }} is null then null
        when regexp_matches({{ user_agent }}, 'Windows Phone') then 'windows phone'
        when regexp_matches({{ user_agent }}, 'Windows') then 'windows'
        when regexp_matches({{ user_agent }}, 'iPhone|iPad|iPod') then 'ios'
        when regexp_matches({{ user_agent }}, 'Android') then 'android'
        when regexp_matches({{ user_agent }}, 'CrOS') then 'chrome os'
        when regexp_matches({{ user_agent }}, 'Mac OS X|Macintosh') then 'macos'
        when regexp_matches({{ user_agent }}, 'Linux|X11') then 'linux'
        else 'other'
    end
{%- endmacro %}
