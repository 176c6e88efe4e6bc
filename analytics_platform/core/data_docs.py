"""Great Expectations' Data Docs, one page a table and site, that a browser without a network can show.

Belongs here: rendering validation results with the package's own renderers, where the pages lie, and their index. Does
not belong here: which expectations there are (`core.checks`), serving the pages (`ui.webserver`).

The package's stock page loads twenty scripts and style sheets from six hosts, and a newsletter form. Here its blocks
stand in a page of our own (`data_docs_views`), which loads nothing. The results are BOOLEAN_ONLY: no page holds a value
of a row. A page shows the newest validation of its table and site; the history is the check's own, in Dagster.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from analytics_platform.core.durable import storage_errors, write_file

__all__ = ["ADDRESS", "DataDocs", "Validated", "warm_up_pages"]

ADDRESS: Final = "/data-docs"
"""Path under which the UI serves the pages."""
_VIEWS: Final = Path(__file__).parent / "data_docs_views"
_PAGE: Final = "offline_page.j2"
_INDEX: Final = "offline_index.j2"
_UNKNOWN_SHARE: Final = "unknown % not null"
"""What the package writes where a BOOLEAN_ONLY result has no count."""
_SUMMARY: Final = re.compile(r'<meta name="summary" content="([^"]*)">')


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What was validated: `table` as `vendor/table`, a site, the days (ascending, at least one), and by which run."""

    table: str
    site: str
    days: Sequence[date]
    run_id: str

    @property
    def name(self) -> str:
        """Of the page, below the root: `vendor/table/site`."""
        return f"{self.table}/{self.site}"

    @property
    def title(self) -> str:
        first, last = self.days[0], self.days[-1]
        return f"{self.table} of {self.site}, {first}" + (f" to {last}" if last > first else "")


class DataDocs:
    """The pages below one folder, made on the first write. Writers of different pages do not meet; of the index the
    last one wins.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, what: Validated, results: Sequence[Any]) -> str:
        """Replace the page of a table and site.

        Args:
            results: Great Expectations' `ExpectationSuiteValidationResult`s, in the order to show them.

        Returns:
            The page's address in the UI.

        Raises:
            StorageError: the disk refuses.
        """
        written_at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        sections = [section for result in results for section in _sections(result)]
        summary = {
            "title": what.title,
            "written_at": written_at,
            "evaluated": sum(int(result.statistics["evaluated_expectations"]) for result in results),
            "failed": sum(int(result.statistics["unsuccessful_expectations"]) for result in results),
        }
        page = (
            _view()
            .env.get_template(_PAGE)
            .render(
                sections=sections,
                page_title=what.title,
                index_path="../" * what.name.count("/") + "index.html",
                written_at=written_at,
                run_id=what.run_id,
                summary=json.dumps(summary),
            )
        )
        path = self.root / f"{what.name}.html"
        with storage_errors(f"Writing the data docs of {what.table}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, page.encode())
        return f"{ADDRESS}/{what.name}.html"

    def write_index(self) -> None:
        """Replace the list of all pages. Raises StorageError where the disk refuses."""
        rows = [
            {"page": path.relative_to(self.root).as_posix(), **json.loads(html.unescape(found[1]))}
            for path in sorted(self.root.glob("*/*/*.html"))
            if (found := _SUMMARY.search(path.read_text(encoding="utf-8")))
        ]
        write_file(self.root / "index.html", _view().env.get_template(_INDEX).render(rows=rows).encode())


def _sections(result: Any) -> list[dict[str, Any]]:
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    document = ValidationResultsPageRenderer(run_info_at_end=True).render(result).to_json_dict()
    sections: list[dict[str, Any]] = document["sections"]
    # The first names the suite and links to a page of suites, which does not exist here; the numbers follow it.
    sections[0]["content_blocks"][0] = _heading(str(result.suite_name), bool(result.success))
    return sections


def _heading(suite: str, passed: bool) -> dict[str, Any]:
    sign = "✓ passed" if passed else "✗ failed"
    return {
        "content_block_type": "header",
        "header": f"{html.escape(suite)}: {sign}",
        "styling": {"classes": ["col-12", "p-0"], "header": {"classes": ["alert", "alert-secondary"]}},
    }


@lru_cache(maxsize=1)
def _view() -> Any:
    """One view a process: compiling its templates takes 20 times as long as rendering a page."""
    from great_expectations.render.view.view import DefaultJinjaPageView

    return DefaultJinjaPageView(custom_views_directory=str(_VIEWS))


def warm_up_pages() -> None:
    """Compile the templates, for a process that will write pages (`core.checking`)."""
    for name in (_PAGE, _INDEX):
        _view().env.get_template(name)
