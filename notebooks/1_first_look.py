"""First look: which vendors there are, what each says of the same days, and what each one means."""

import marimo

app = marimo.App(width="medium", app_title="First look")


@app.cell
def _():
    import marimo as mo

    from analytics_platform.catalog import Catalog

    catalog = Catalog.open()
    return catalog, mo


@app.cell(hide_code=True)
def _(mo):
    mo.md(
        """
        # First look

        Several vendors count the same visitors, and each has its own words. Nothing here is averaged: every number
        keeps the name of the vendor that said it. This page reads what was **published** last; it never disturbs a
        run, and a run never disturbs it.
        """
    )
    return


@app.cell
def _(catalog, mo):
    sites = catalog.read("dim_site")
    days = catalog.freshness("fct_daily_traffic")
    site = mo.ui.dropdown(sorted(sites["site_key"]), value=sites["site_key"].max(), label="site")
    mo.hstack([site, mo.md(f"{days.days} days, {days.first_date} to {days.newest_date}; published {days.updated_at:%Y-%m-%d %H:%M} UTC")])
    return days, site


@app.cell(hide_code=True)
def _(mo):
    mo.md(
        """
        ## Sessions a day

        A spike that one vendor has and another has not, or a line that turns flat, is the beginning of a question, not
        an answer. The next notebook asks it.
        """
    )
    return


@app.cell
def _(catalog, site):
    catalog.plot("reconciliation", site=site.value, metric="sessions")
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(
        """
        ## The same days in each vendor's own definitions

        An empty cell is not a zero: `reason_null` says why there is no number. Visitors are shown as an average a day,
        because adding them up over days would count people twice.
        """
    )
    return


@app.cell
def _(catalog, site):
    catalog.sql(
        f"""
        select vendor, any_value(coverage) as coverage, sum(sessions) as sessions, sum(views) as views,
               round(sum(bounces) / sum(sessions), 3) as bounce_rate, round(avg(visitors), 1) as average_daily_visitors,
               max(reason_null) as reason_null
        from fct_daily_traffic
        where basis = 'native' and site_key = '{site.value}'
        group by vendor order by sessions desc nulls last
        """
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("## What each vendor means by a session")
    return


@app.cell
def _(catalog):
    definitions = catalog.definition("sessions")
    definitions.loc[definitions["basis"] == "native", ["vendor", "definition", "source_url"]]
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("## When people come")
    return


@app.cell
def _(catalog, site):
    catalog.plot("heat_map", site=site.value)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(
        """
        ## Where to go from here

        `catalog.list()` names every table, `catalog.describe("fct_sessions")` its columns, and
        `catalog.read("fct_sessions", "2026-10-05", "2026-10-11", site="shop")` gives a pandas frame
        (`engine="polars"` and `engine="arrow"` as well).
        """
    )
    return


if __name__ == "__main__":
    app.run()
