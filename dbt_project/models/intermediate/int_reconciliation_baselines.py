"""Baselines between confirmed breaks: one row per comparable day. The arithmetic is analytics_platform.reconcile's."""


def model(dbt, session):
    """Cut each series of int_reconciliation_days at its breaks."""
    from analytics_platform.reconcile.frames import baselines

    dbt.config(materialized="table")
    return baselines(dbt.ref("int_reconciliation_days").df())
