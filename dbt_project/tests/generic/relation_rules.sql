{#- Generic tests that hold one relation against another. -#}

{#- Vertical integrity: per group, a sum here equals a sum there. Groups missing on one side count as zero. -#}
{% test sum_equals(model, expression, other, other_expression, group_by, row_filter='true', other_filter='true', tolerance=0) %}
    with
        here as (
            select {{ group_by | join(', ') }}, {{ expression }} as measured
            from {{ model }}
            where {{ row_filter }}
            group by {{ group_by | join(', ') }}
        ),

        there as (
            select {{ group_by | join(', ') }}, {{ other_expression }} as measured
            from {{ other }}
            where {{ other_filter }}
            group by {{ group_by | join(', ') }}
        )

    select {{ group_by | join(', ') }}, here.measured as here_measured, there.measured as there_measured
    from here
    full join there using ({{ group_by | join(', ') }})
    where abs(coalesce(here.measured, 0) - coalesce(there.measured, 0)) > {{ tolerance }}
{% endtest %}

{#- Every key of the spine has a row here. -#}
{% test row_per_spine(model, spine, key, row_filter='true', spine_filter='true') %}
    select {{ key | join(', ') }}
    from {{ spine }}
    where {{ spine_filter }}
    except
    select {{ key | join(', ') }}
    from {{ model }}
    where {{ row_filter }}
{% endtest %}

{#-
    Every value of the column is a value of the other relation's column; NULL passes.
    The other relation is asked for these values only: a window's sessions are a few of all there ever were.
-#}
{% test value_known_to(model, column, other, other_column) %}
    with
        told as (
            select distinct {{ column }} as told_value
            from {{ model }}
            where {{ column }} is not null
        ),

        others as (select {{ other_column }} as other_value from {{ other }}),

        known as (select others.other_value from others semi join told on others.other_value = told.told_value)

    select told_value
    from told
    except
    select other_value
    from known
{% endtest %}
