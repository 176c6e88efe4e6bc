"""Why do they disagree: from a gap between two vendors to its parts, and to what nobody can explain."""

import marimo

app = marimo.App(width="medium", app_title="Why do they disagree?")


@app.cell
def _():
    import marimo as mo
    import pandas as pd

    from analytics_platform.catalog import Catalog

    catalog = Catalog.open()
    return catalog, mo, pd


@app.cell(hide_code=True)
def _(mo):
    mo.md(
        """
        # Why do they disagree?

        Gaps between vendors are normal; *changes* of a gap are news. So each vendor is compared with an anchor by its
        ratio, against what that ratio usually is, and the gap of a day is taken apart in a fixed order: days not
        complete, another midnight, another definition, bots, a plan's cap, consent and blockers, missing tags. What is
        left is called unexplained, and is always shown.
        """
    )
    return


@app.cell
def _(catalog, mo):
    compared = catalog.read("fct_vendor_reconciliation", columns=["site_key", "stat_date", "metric", "vendor", "anchor_vendor", "value", "anchor_value", "ratio", "median_ratio_28d", "z_score", "status", "reason", "change_point_date"])
    site = mo.ui.dropdown(sorted(set(compared["site_key"])), value=compared["site_key"].max(), label="site")
    metric = mo.ui.dropdown(["sessions", "views", "visitors"], value="sessions", label="metric")
    mo.hstack([site, metric], justify="start")
    return compared, metric, site


@app.cell
def _(catalog, metric, site):
    catalog.plot("reconciliation", site=site.value, metric=metric.value)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("## What broke, and when")
    return


@app.cell
def _(compared, metric, site):
    _mine = compared[(compared["site_key"] == site.value) & (compared["metric"] == metric.value)]
    breaks = _mine[(_mine["status"] == "break") & (_mine["stat_date"] == _mine["change_point_date"])]
    breaks[["vendor", "stat_date", "ratio", "median_ratio_28d", "z_score", "reason"]].reset_index(drop=True)
    return (breaks,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(
        """
        ## One day, taken apart

        The day shown is that of the widest break, or the newest compared one where nothing broke.
        """
    )
    return


@app.cell
def _(breaks, catalog, metric, pd, site):
    from analytics_platform.reconcile.report import reconcile

    _gaps = catalog.read("fct_reconciliation_waterfall", site=site.value, where=f"metric = '{metric.value}'")
    _candidates = breaks[breaks["vendor"].isin(set(_gaps["vendor"]))]
    _chosen = _candidates.sort_values("z_score", key=abs).tail(1) if len(_candidates) else _gaps.sort_values("stat_date").tail(1)
    vendor = _chosen["vendor"].iloc[0]
    stat_date = pd.Timestamp(_chosen["stat_date"].iloc[0]).date()
    (day,) = reconcile(catalog, stat_date, sites=[site.value], metrics=[metric.value])
    gap = next(each for each in day.gaps if each.vendor == vendor)
    return gap, stat_date, vendor


@app.cell
def _(catalog, metric, site, stat_date, vendor):
    catalog.plot("waterfall", stat_date, stat_date, site=site.value, metric=metric.value, vendor=vendor)
    return


@app.cell
def _(gap, mo, stat_date):
    mo.md(
        f"On {stat_date}, {gap.anchor_vendor} says {gap.anchor_value:,.0f} and {gap.vendor} {gap.vendor_value:,.0f}. "
        "Likely causes, the largest first:\n\n" + "\n".join(f"1. {cause.text}" for cause in gap.causes)
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(
        """
        ## Which number to use

        For *how many came*, the anchor: it needs no consent and drops bots. For *what they did*, a session vendor, with
        its coverage beside it. For *did it change*, any vendor against itself. And none of them added up.
        """
    )
    return


@app.cell
def _(catalog, metric):
    _found = catalog.definition(metric.value)
    _found[["vendor", "basis", "definition", "formula", "source_url"]]
    return


if __name__ == "__main__":
    app.run()
