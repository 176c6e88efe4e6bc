{#-
    Incremental strategy `replace_rows`: for relations of all the past in which a window touches few rows.
    The model selects what its touched rows are now; the rows the macro `meta.replaced_rows` names go first (a touched row may have
    vanished), and every row whose `meta.row_key` comes. One transaction.
-#}
{% macro get_incremental_replace_rows_sql(arg_dict) %}
    {%- set meta = config.get('meta', {}) -%}
    delete from {{ arg_dict['target_relation'] }}
    where
        ({{ context[meta['replaced_rows']]() }})
        or {{ meta['row_key'] }} in (select {{ meta['row_key'] }} from {{ arg_dict['temp_relation'] }});

    insert into {{ arg_dict['target_relation'] }} by name
    select * from {{ arg_dict['temp_relation'] }}
{% endmacro %}

{#-
    Rows of dim_visitor a window may change: those whose visits reach into it, and those that say something of a person. Identity
    is worked out from all of the past, so that a new login may join visitors of long ago.
-#}
{% macro visitors_touched() -%}
    (first_seen_date <= {{ window_bound('window_end') }} and last_seen_date >= {{ window_bound('window_start') }})
    or coalesce(reason_null, '') <> '{{ 'not_logged_in' if links_identities() | trim == 'true' else 'policy_none' }}'
{%- endmacro %}
