"""The definitions table of docs/decisions.md, made from the seeds `metric_definitions` and `vendor_capabilities`.

Belongs here: turning seed rows into Markdown and putting them between the marks. Does not belong here: a definition.

    python -m analytics_platform_tests.docs.definitions
"""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions.md"
SEEDS = ROOT / "dbt_project" / "seeds"
START = "<!-- made from the seed metric_definitions by `python -m analytics_platform_tests.docs.definitions` -->"
END = "<!-- end of the definitions -->"


def rows(seed: str) -> list[dict[str, str]]:
    """A seed as dictionaries, in its own order."""
    with (SEEDS / f"{seed}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table() -> str:
    """One table a metric: vendor, native meaning, common meaning, source. Unavailable is said with its reason."""
    parts = []
    for metric, of_metric in groupby(rows("metric_definitions"), key=lambda row: row["metric"]):
        lines = [f"**{metric}**", "", "| vendor | native | common | source |", "|---|---|---|---|"]
        for vendor, pair in groupby(of_metric, key=lambda row: row["vendor"]):
            by_basis = {row["basis"]: row for row in pair}
            native, common = by_basis["native"], by_basis["common"]
            lines.append(f"| {vendor} | {_said(native)} | {_said(common)} | [source]({native['source_url']}) |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _said(row: dict[str, str]) -> str:
    if row["is_offered"] == "True":
        return row["definition"].replace("|", "\\|")
    return f"NULL, `{row['reason_null']}`: {row['definition']}".replace("|", "\\|")


def replaced(text: str) -> str:
    """The page with the present table between its marks.

    Raises:
        ValueError: the marks are not there, once each.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end or START in after:
        raise ValueError(f"{DECISIONS.name} must hold the two marks once each")
    return f"{before}{START}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    DECISIONS.write_text(replaced(DECISIONS.read_text(encoding="utf-8")), encoding="utf-8")
