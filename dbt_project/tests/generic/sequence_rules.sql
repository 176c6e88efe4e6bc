{#- Generic tests about numbered rows. -#}

{#- In every group the numbers are 1, 2, … without hole or repetition. -#}
{% test contiguous_from_one(model, group_by, column) %}
    select {{ group_by | join(', ') }}, count(*) as row_count, min({{ column }}) as first_number, max({{ column }}) as last_number
    from {{ model }}
    group by {{ group_by | join(', ') }}
    having min({{ column }}) <> 1 or max({{ column }}) <> count(*) or count(distinct {{ column }}) <> count(*)
{% endtest %}
