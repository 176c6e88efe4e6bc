"""Stretches of one acceptance ratio per vendor, site and country. The arithmetic is analytics_platform.reconcile's."""


def model(dbt, session):
    """Cut each series of int_acceptance_days where its ratio changes."""
    from analytics_platform.reconcile.frames import stretches

    dbt.config(materialized="table")
    return stretches(dbt.ref("int_acceptance_days").df())
