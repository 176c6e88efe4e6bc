"""Funnel to replay: where people leave, in every vendor's count, and recorded sessions of those who left."""

import marimo

app = marimo.App(width="medium", app_title="From the funnel to a replay")


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
        # From the funnel to a replay

        A funnel says *where* people leave, a recording shows *why*. Vendors do not count funnels alike, so their bars
        stand side by side, each as a share of its own first step.
        """
    )
    return


@app.cell
def _(catalog, mo):
    _sites = sorted(set(catalog.read("fct_funnel_daily", columns=["site_key"])["site_key"]))
    site = mo.ui.dropdown(_sites, value=_sites[-1], label="site")
    site
    return (site,)


@app.cell
def _(catalog, site):
    catalog.plot("funnel", site=site.value)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(
        """
        ## Sessions to look at

        One best recording an outcome and day. The link itself is a secret of the vendor's account, so only a reference
        is kept here; `analytics-platform replay` opens it for those who may.
        """
    )
    return


@app.cell
def _(catalog, site):
    links = catalog.read("fct_replay_links", site=site.value)
    links[links["priority"] == 1].sort_values(
        ["session_date_local", "outcome", "vendor"], ascending=[False, True, True]
    ).head(12).reset_index(drop=True)
    return (links,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(
        """
        ## Are these recordings typical?

        Recorded sessions ÷ sessions by the anchor's count, by segment. A bias ratio far from 1 means that this kind of
        visitor is over- or under-represented among the recordings: conclude with care.
        """
    )
    return


@app.cell
def _(catalog, site):
    catalog.sql(
        f"""
        select vendor, segment_dimension, segment_value,
               round(sum(recorded_sessions) / sum(estimated_sessions), 2) as coverage, round(avg(bias_ratio), 2) as bias_ratio
        from fct_replay_coverage_daily
        where site_key = '{site.value}' and estimated_sessions > 0
        group by all order by vendor, segment_dimension, coverage
        """
    )
    return


if __name__ == "__main__":
    app.run()
