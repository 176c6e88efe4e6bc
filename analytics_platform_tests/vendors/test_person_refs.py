"""Login ids and e-mails of the three vendors that are told them, from a vendor's page to the lake's keyed hashes."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics_platform.core.identity import PersonKey
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.paging import Page
from analytics_platform.core.tables import Sensitivity, TableSpec
from analytics_platform.vendors.inspectlet.tables import SESSION_TAGS
from analytics_platform.vendors.kameleoon.tables import VISITS
from analytics_platform.vendors.smartlook.tables import SESSIONS

DAY = date(2026, 10, 5)
STARTED_S = 1791204000  # 2026-10-05 12:40 UTC
LOGIN, EMAIL = "shop-17", "Ada.Costa@example.org"
KEY = PersonKey(secret="0123456789abcdef0123456789abcdef", sites=frozenset({"shop"}))
CODE = "abcdef0123456789"

SMARTLOOK = {"sessions": [
    {"id": "s1", "visitorId": "v1", "startedAt": "2026-10-05T12:40:00Z",
     "identification": {"uid": LOGIN, "properties": {"email": EMAIL}}},
    {"id": "s2", "visitorId": "v2", "startedAt": "2026-10-05T12:40:00Z",
     "identification": {"uid": "anonymous", "properties": [{"name": "user_email", "value": EMAIL.lower()}]}},
    {"id": "s3", "visitorId": "v3", "startedAt": "2026-10-05T12:40:00Z", "identification": {"properties": {}}},
]}  # fmt: skip
INSPECTLET = {"response": [{"wid": 1, "sid": 2, "date_start_session": STARTED_S, "tags": [
    {"tag": "email", "value": EMAIL, "timestamp": STARTED_S},
    {"tag": "name", "value": EMAIL, "timestamp": STARTED_S},
    {"tag": "email", "value": "guest@shop.de", "timestamp": STARTED_S},
]}]}  # fmt: skip


def _slot(second: int, value: str, *, mapping: bool) -> dict[str, object]:
    data = {"index": 3, "valuesCountMap": {value: 1}, "overwrite": True, "mappingIdentifier": mapping}
    return {"data": data, "itp": False, "time": STARTED_S * 1000 + second}


def _visit(second: int, *slots: dict[str, object]) -> dict[str, object]:
    at = STARTED_S * 1000 + second * 1000
    return {"visitorCode": CODE, "timeStarted": at, "timeLastEvent": at, "customDataEvents": list(slots)}


KAMELEOON = {"previousVisits": [
    _visit(0, _slot(2, LOGIN, mapping=True), _slot(1, "shop-1", mapping=True), _slot(3, "gold", mapping=False)),
    _visit(1, _slot(1, "gold", mapping=False)),
    {"visitorCode": CODE, "timeStarted": STARTED_S * 1000 + 2000, "timeLastEvent": STARTED_S * 1000 + 2000},
]}  # fmt: skip


def lake_rows(
    folder: Path, spec: TableSpec, body: object, columns: str, *, key: PersonKey | None, site: str = "shop"
) -> list[tuple[Any, ...]]:
    page = Page(
        call=spec.calls[0],
        call_kind=spec.calls[0],
        sequence=0,
        is_last=True,
        body=json.dumps(body).encode(),
        status=200,
        endpoint="test",
        received_at=datetime(2026, 10, 8, 12, tzinfo=UTC),
        context={"records": "1", "visitor_code": CODE},
        records=1,
        attempts=1,
    )
    with Landing(folder / "landing").open_batch(
        vendor=spec.vendor, stream="test", site=site, first_day=DAY, last_day=DAY, run_id="r"
    ) as writer:
        writer.append(page)
        batch = writer.complete()
    (written,) = Lake(folder / "lake", person_key=key).decode(spec, [(batch, (DAY,))], site=site)
    order = ", ".join(spec.key)
    with duckdb.connect() as engine:
        return engine.execute(f"SELECT {columns} FROM read_parquet('{written.path}') ORDER BY {order}").fetchall()


CASES = [
    pytest.param(
        SESSIONS, SMARTLOOK, "uid_ref, email_ref", [(LOGIN, EMAIL), ("anonymous", EMAIL), (None, None)], id="smartlook"
    ),
    pytest.param(
        SESSION_TAGS, INSPECTLET, "email_ref", [(EMAIL,), ("guest@shop.de",), (None,)], id="inspectlet-email-tags-only"
    ),
    pytest.param(VISITS, KAMELEOON, "login_ref", [(LOGIN,), (None,), (None,)], id="kameleoon-newest-mapping-value"),
]


@pytest.mark.parametrize(("spec", "body", "columns", "named"), CASES)
def test_who_logged_in_is_a_keyed_hash(
    tmp_path: Path, spec: TableSpec, body: object, columns: str, named: list[tuple[str | None, ...]]
) -> None:
    expected = [tuple(KEY.reference(value, site="shop") for value in row) for row in named]
    assert lake_rows(tmp_path, spec, body, columns, key=KEY) == expected
    assert any(value for row in expected for value in row)


@pytest.mark.parametrize(("spec", "body", "columns", "named"), CASES)
def test_without_a_key_or_an_agreement_nobody_is_referred_to(
    tmp_path: Path, spec: TableSpec, body: object, columns: str, named: list[tuple[str | None, ...]]
) -> None:
    nobody = [tuple(None for _ in row) for row in named]
    assert lake_rows(tmp_path / "no_key", spec, body, columns, key=None) == nobody
    assert lake_rows(tmp_path / "not_agreed", spec, body, columns, key=KEY, site="blog") == nobody


def test_references_are_marked_as_pseudonymous() -> None:
    for spec in (SESSIONS, SESSION_TAGS, VISITS):
        refs = [column for column in spec.columns if column.name.endswith("_ref")]
        assert refs
        assert {column.sensitivity for column in refs} == {Sensitivity.PSEUDONYMOUS}
