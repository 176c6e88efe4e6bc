{#-
    Views, tables and tests in as few statements as DuckDB needs. The stock ones are written for databases that cannot replace a
    relation: they build beside it, rename twice, drop, and open a transaction around it, so that a build spends a
    quarter of its time in dbt's bookkeeping of 1,440 statements instead of 676. DuckDB replaces a relation atomically.
-#}

{#-
    One statement, its own transaction, unless a hook wants to be in it. Grants and comments are not DuckDB's, or `publish` writes them.
-#}
{% materialization view, adapter='duckdb' %}
    {%- set target_relation = this.incorporate(type='view') -%}
    {%- set has_transaction = any_in_transaction(pre_hooks, post_hooks) == 'true' -%}
    {% do drop_other_kind(target_relation) %}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% if config.get('contract').enforced %}{% do get_assert_columns_equivalent(sql) %}{% endif %}
    {% call statement('main', auto_begin=has_transaction) -%}
        create or replace view {{ target_relation }} as (
            {{ sql }}
        )
    {%- endcall %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% if has_transaction %}{% do adapter.commit() %}{% endif %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{#-
    Without a contract one statement; with one the columns as the contract lists them, filled in the same transaction. What Python
    makes cannot replace: it is made beside the table and takes its place.
-#}
{% materialization table, adapter='duckdb', supported_languages=['sql', 'python'] %}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set is_python = model['language'] == 'python' -%}
    {%- set has_contract = config.get('contract').enforced -%}
    {%- set has_transaction = is_python or has_contract or any_in_transaction(pre_hooks, post_hooks) == 'true' -%}
    {% do drop_other_kind(target_relation) %}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% if is_python %}
        {%- set existing = load_cached_relation(target_relation) -%}
        {%- set beside = make_intermediate_relation(target_relation) -%}
        {%- set backup = make_backup_relation(target_relation, 'table') -%}
        {% for left_over in (beside, backup) %}{% do adapter.drop_relation(left_over) %}{% endfor %}
        {% call statement('main', language='python') -%}
            {{ create_table_as(False, beside, compiled_code, 'python') }}
        {%- endcall %}
        {% if existing is not none %}{% do adapter.rename_relation(existing, backup) %}{% endif %}
        {% do adapter.rename_relation(beside, target_relation) %}
    {% else %}
        {% if has_contract %}{% do get_assert_columns_equivalent(compiled_code) %}{% endif %}
        {% call statement('main', auto_begin=has_transaction) -%}
            create or replace table {{ target_relation }}
            {% if has_contract %}
                {{ get_table_columns_and_constraints() }};
                insert into {{ target_relation }} {{ get_column_names() }} (
                    {{ get_select_subquery(compiled_code) }}
                )
            {% else %}
                as (
                    {{ compiled_code }}
                )
            {% endif %}
        {%- endcall %}
    {% endif %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% if has_transaction %}{% do adapter.commit() %}{% endif %}
    {% if is_python and existing is not none %}{% do adapter.drop_relation(backup) %}{% endif %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{#- One SELECT, which needs no transaction. Where failures are to be kept (`--store-failures`) it is dbt's own. -#}
{% materialization test, adapter='duckdb' %}
    {% if should_store_failures() %}{{ return(dbt.materialization_test_default()) }}{% endif %}
    {% call statement('main', fetch_result=True, auto_begin=False) -%}
        {{ get_test_sql(
            get_limit_subquery_sql(sql, config.get('limit')), config.get('fail_calc'), config.get('warn_if'), config.get('error_if'),
            limit=none
        ) }}
    {%- endcall %}
    {{ return({'relations': []}) }}
{% endmaterialization %}

{#- Whether a hook is to run in the transaction of its model, as hooks do unless they say otherwise: the text `true`, else nothing. -#}
{% macro any_in_transaction(pre_hooks, post_hooks) -%}
    {{ 'true' if (pre_hooks + post_hooks) | selectattr('transaction') | list }}
{%- endmacro %}

{#- A view does not replace a table, nor a table a view: a model that changed its kind loses what it was. -#}
{% macro drop_other_kind(target_relation) %}
    {%- set existing = load_cached_relation(target_relation) -%}
    {% if existing is not none and existing.type != target_relation.type %}{% do adapter.drop_relation(existing) %}{% endif %}
{% endmacro %}

{#-
    Whether a model's SQL has the columns and types of its contract. One look where the contract says the types in DuckDB's own words;
    where anything differs dbt's own comparison decides, and words the error.
-#}
{% macro duckdb__get_assert_columns_equivalent(sql) %}
    {%- set found = {} -%}
    {%- for column in get_column_schema_from_query(sql, config.get('sql_header', none)) -%}
        {%- do found.update({column.name: column.dtype | upper}) -%}
    {%- endfor -%}
    {%- set told = {} -%}
    {%- for column in model['columns'].values() -%}
        {%- do told.update({column['name']: (column['data_type'] or '') | upper}) -%}
    {%- endfor -%}
    {% if not told or found != told %}{{ return(assert_columns_equivalent(sql)) }}{% endif %}
{% endmacro %}
