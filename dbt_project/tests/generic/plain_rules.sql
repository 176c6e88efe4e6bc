{#-
    dbt's own plain tests, with one difference: they are thorough.
    Every mart's contract and its one-statement rules (unique_combo refuses a NULL in any part of a key) run in every build;
    these repeat parts of them column by column, a statement each, and run where time is no matter (`dbt_thorough`, `make test`).
-#}
{% test not_null(model, column_name) %}
    {{ config(tags=['thorough']) }}
    {{ default__test_not_null(model, column_name) }}
{% endtest %}

{#- Every value is one of the other relation's. -#}
{% test relationships(model, column_name, to, field) %}
    {{ config(tags=['thorough']) }}
    {{ default__test_relationships(model, column_name, to, field) }}
{% endtest %}
