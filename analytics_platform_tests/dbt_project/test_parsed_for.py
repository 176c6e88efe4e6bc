"""What was parsed for no home, unpacked for one, is what dbt parses for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from analytics_platform.transform.project import parsed_for
from analytics_platform_tests.dbt_project.conftest import prepared, run_dbt

_OF_THE_PARSE = frozenset({"created_at"})


def test_unpacked_for_a_lake_it_is_what_dbt_parses_for_it(tmp_path: Path) -> None:
    lake = tmp_path / "home" / "lake"
    done = run_dbt(["parse"], lake, tmp_path / "warehouse.duckdb", tmp_path / "target")
    assert done.success
    unpacked, parsed = parsed_for(lake, prepared()), done.result
    for kind in ("nodes", "sources", "macros", "exposures", "metrics", "semantic_models", "unit_tests"):
        assert _without_clock(getattr(unpacked, kind)) == _without_clock(getattr(parsed, kind)), kind
    assert str(lake) in next(iter(unpacked.sources.values())).relation_name


def _without_clock(found: Any) -> dict[str, Any]:
    """As JSON: what was unpacked has plain texts where the parse has kinds of text."""
    return {
        name: json.loads(
            json.dumps({key: value for key, value in each.to_dict().items() if key not in _OF_THE_PARSE}, default=str)
        )
        for name, each in found.items()
    }
