"""Known records of the suite's world, worked out from the vendors' answers with none of our code.

    python -m analytics_platform_tests.acceptance.golden

asks a fresh sandbox with plain httpx and writes golden.json: a few records a vendor, as the lake must show them. It
imports no client, no table and no lake on purpose: the SQL of `tables.py` is what it is compared with. Look at the
difference before you commit it.

Belongs here: asking, and the mapping in plain Python. Does not belong here: comparing (`test_read`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from analytics_platform.sandbox.server import Sandbox
from analytics_platform.sandbox.truth import generate

PAGE = Path(__file__).with_name("golden.json")
_DAY = date(2026, 10, 5)
UNLIMITED: dict[str, dict[str, object]] = {
    # Limits have tests of their own; here hundreds of readings share a server.
    "smartlook": {"hourly_limit": 1_000_000},
    "kameleoon": {"gets_per_second": 1_000_000.0, "anonymous_gets_per_second": 1_000_000.0},
}
_AT_MOST = 3
_SAMPLE = 0.05
_EVERYTHING: dict[str, object] = {"filters": [], "limit": 100}
Records = dict[str, list[dict[str, Any]]]


def plain(value: Any) -> Any:
    """A lake value as JSON has it: instants and dates as ISO text."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value


def known_records(sandbox: Sandbox) -> dict[str, Records]:
    """A handful of records a vendor: table → rows, each with its key and the fields that say most."""
    with httpx.Client(trust_env=False, headers={"User-Agent": "golden"}) as http:
        return {
            "smartlook": _smartlook(sandbox, http),
            "inspectlet": _inspectlet(sandbox, http),
            "pirsch": _pirsch(sandbox, http),
            "kameleoon": _kameleoon(sandbox, http),
            "kissmetrics": _kissmetrics(sandbox, http),
        }


def _sessions(sandbox: Sandbox, http: httpx.Client) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {sandbox.world.sites[0].smartlook_token}"}
    url = f"{sandbox.base_urls['smartlook']}/api/v1/sessions/search"
    answer = http.post(url, json=_EVERYTHING, headers=headers).json()
    return [each for each in answer["sessions"] if each["startedAt"].startswith(str(_DAY))]


def _sampled_codes(sandbox: Sandbox, http: httpx.Client) -> list[str]:
    """Codes of the suite's panel: seen by Smartlook that day, and below the sample's line on a circle of SHA-256."""
    seen = {each["identification"]["properties"]["kameleoon_visitor_code"] for each in _sessions(sandbox, http)}
    return sorted(code for code in seen if int(sha256(code.encode()).hexdigest()[:16], 16) / 2**64 < _SAMPLE)


def _smartlook(sandbox: Sandbox, http: httpx.Client) -> Records:
    site, base = sandbox.world.sites[0], sandbox.base_urls["smartlook"]
    headers = {"Authorization": f"Bearer {site.smartlook_token}"}
    of_the_day = _sessions(sandbox, http)
    visitors = http.post(f"{base}/api/v1/visitors/search", json=_EVERYTHING, headers=headers).json()["visitors"]
    with_mail = [each for each in of_the_day if "email" in each["identification"]["properties"]]
    return {
        "sessions": [
            {
                "session_id": each["id"],
                "visitor_id": each["visitorId"],
                "email": each["identification"]["properties"].get("email"),
                "kameleoon_visitor_code": each["identification"]["properties"]["kameleoon_visitor_code"],
                "started_at": _utc(each["startedAt"]),
                "ended_at": _utc(each["endedAt"]),
                "duration_seconds": float(each["duration"]),
                "page_urls": each["pageUrl"],
                "page_count": len(each["pageUrl"]),
                "referrer_url": each.get("referrer") or None,
                "browser_name": each["identification"]["browser"]["name"],
                "country_code": each["identification"]["country"]["code"].upper(),
                "screen_width_px": each["identification"]["device"]["width"],
                "note_count": len(each["notes"]),
            }
            for each in (with_mail[:1] + of_the_day)[:_AT_MOST]
        ],
        "visitors": [
            {"visitor_id": each["id"], "first_seen_at": _utc(each["firstSeen"]), "last_seen_at": _utc(each["lastSeen"])}
            for each in visitors
            if each["firstSeen"].startswith(str(_DAY))
        ][:_AT_MOST],
    }


def _inspectlet(sandbox: Sandbox, http: httpx.Client) -> Records:
    site, secret = sandbox.world.sites[0], sandbox.context.credentials
    midnight = datetime(_DAY.year, _DAY.month, _DAY.day, tzinfo=UTC)
    bounds = {"start": str(int(midnight.timestamp())), "end": str(int((midnight + timedelta(days=1)).timestamp()) - 1)}
    search = json.dumps({"daterange": "custom", "daterangecustom": bounds})
    answer = http.post(
        f"{sandbox.base_urls['inspectlet']}/v1/websites/{site.wid}/sessions",
        data={"search": search, "limit": "100", "page": "1"},
        auth=(secret.inspectlet_username, secret.inspectlet_api_token),
    ).json()["response"]["sessions"]
    some = answer[:_AT_MOST]
    return {
        "sessions": [
            {
                "wid": each["wid"],
                "sid": each["sid"],
                "uid": each["uid"],
                "started_at": _epoch(each["date_start_session"]),
                "ended_at": _epoch(each["date_end_session"]),
                "session_duration_raw": float(each["session_duration"]),
                "duration_seconds": each["session_duration"] / 1000,
                "num_pages": each["num_pages"],
                "listed_page_count": len(each["pages"]),
                "is_new_visitor": each["new_visitor"],
                "is_starred": each["starred"],
                "landing_url": each["landing_page"],
                "country_code": each["country"].upper(),
                "display_name": each["display_name"] or None,
                "tag_count": len(each["tags"]),
                "session_link": each["sessionlink"],
            }
            for each in some
        ],
        "session_pages": [
            {
                "wid": each["wid"],
                "sid": each["sid"],
                "page_index": number,
                "rid": page["rid"],
                "opened_at": _epoch(page["opened_at"]),
                "page_url": page["url"],
                "page_title": page["pagetitle"],
            }
            for each in some[:1]
            for number, page in enumerate(each["pages"], start=1)
        ],
    }


def _pirsch(sandbox: Sandbox, http: httpx.Client) -> Records:
    site, base, secret = sandbox.world.sites[0], sandbox.base_urls["pirsch"], sandbox.context.credentials
    pair = {"client_id": secret.pirsch_client_id, "client_secret": secret.pirsch_client_secret}
    token = http.post(f"{base}/api/v1/token", json=pair).json()["access_token"]

    def report(name: str) -> Any:
        query = {"id": site.pirsch_domain_id, "from": str(_DAY), "to": str(_DAY)}
        headers = {"Authorization": f"Bearer {token}"}
        return http.get(f"{base}/api/v1/statistics/{name}", params=query, headers=headers).json()

    (day,), (duration,) = report("visitor"), report("duration/session")
    return {
        "daily_stats": [
            {
                "stat_date": day["day"][:10],
                **{name: day[name] for name in ("visitors", "views", "sessions", "bounces")},
                "bounce_rate": day["bounce_rate"],
                "average_session_seconds": float(duration["average_time_spent_seconds"]),
            }
        ],
        "hourly": [
            {"stat_date": str(_DAY), **{name: each[name] for name in ("hour", "visitors", "views", "sessions")}}
            for each in report("hours")
        ][8 : 8 + _AT_MOST],
        "pages": [
            {"stat_date": str(_DAY), **{name: each[name] for name in ("path", "title", "visitors", "views", "bounces")}}
            for each in report("page")
        ][:_AT_MOST],
        "breakdowns": [
            {
                "stat_date": str(_DAY),
                "dimension": "browser",
                "parent_value": "",
                "value": each["browser"],
                "visitors": each["visitors"],
            }
            for each in report("browser")
        ][:_AT_MOST],
    }


def _kameleoon(sandbox: Sandbox, http: httpx.Client) -> Records:
    site, base = sandbox.world.sites[0], sandbox.base_urls["kameleoon"]
    visits = []
    for code in _sampled_codes(sandbox, http):
        wanted = {"siteCode": site.kameleoon_site_code, "visitorCode": code, "maxNumberPreviousVisits": "25"}
        kinds = dict.fromkeys(("staticData", "page", "conversion", "experiment"), "true")
        answer = http.get(f"{base}/visit/visitor", params={**wanted, **kinds}).json()
        visits += [each for each in answer.get("previousVisits", ()) if _millis(each["timeStarted"])[:10] == str(_DAY)]
    some = sorted(visits, key=lambda each: (each["visitorCode"], each["timeStarted"]))[:_AT_MOST]
    return {
        "visits": [
            {
                "visitor_code": each["visitorCode"],
                "started_at": _millis(each["timeStarted"]),
                "last_event_at": _millis(each["timeLastEvent"]),
                "duration_seconds": (each["timeLastEvent"] - each["timeStarted"]) / 1000,
                "site_code": each["siteCode"],
                "page_count": len(each.get("pageEvents", ())),
                "conversion_count": len(each.get("conversionEvents", ())),
                "visit_number": each["staticDataEvent"]["data"]["visitNumber"],
                "device_type": each["staticDataEvent"]["data"]["deviceType"],
                "screen_width_px": each["staticDataEvent"]["data"]["screenWidth"],
                "landing_url": min(each["pageEvents"], key=lambda page: page["time"])["data"]["href"],
            }
            for each in some
        ],
        "visit_pages": [
            {
                "visitor_code": each["visitorCode"],
                "visit_started_at": _millis(each["timeStarted"]),
                "page_number": number,
                "viewed_at": _millis(page["time"]),
                "url": page["data"]["href"],
                "title": page["data"]["title"],
            }
            for each in some[:1]
            for number, page in enumerate(sorted(each["pageEvents"], key=lambda page: page["time"]), start=1)
        ],
    }


def _kissmetrics(sandbox: Sandbox, http: httpx.Client) -> Records:
    site, base = sandbox.world.sites[0], sandbox.base_urls["kissmetrics"]
    headers = {"Authorization": f"Bearer {sandbox.context.credentials.kissmetrics_api_token}"}
    product_url = f"{base}/core/products/{site.kissmetrics_product_id}"
    product = http.get(product_url, headers=headers).json()["data"]
    events = http.get(f"{product_url}/events", params={"limit": 100}, headers=headers).json()["data"]
    return {
        "products": [
            {
                "product_id": product["id"],
                "account_id": product["account_id"],
                "url": product["url"],
                "timezone": product["timezone"],
                "hosts": product["hosts"],
                "created_at": _utc(product["created_at"]),
            }
        ],
        "events": [
            {
                "event_id": each["id"],
                "product_id": each["product_id"],
                "vendor_index": each["index"],
                "name": each["name"],
                "display_name": each["display_name"],
                "is_visible": each["is_visible"],
                "total": each["total"],
                "first_sent_at": _utc(each["first_sent_at"]),
            }
            for each in events[:_AT_MOST]
        ],
    }


def _utc(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None).isoformat()


def _epoch(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


def _millis(instant_ms: int) -> str:
    started = datetime.fromtimestamp(instant_ms // 1000, UTC) + timedelta(milliseconds=instant_ms % 1000)
    return started.replace(tzinfo=None).isoformat()


def _written(records: Mapping[str, Records]) -> str:
    return json.dumps(records, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    with Sandbox(generate(first_day=_DAY, days=1, scale=1.0), profiles=UNLIMITED) as fresh:
        PAGE.write_text(_written(known_records(fresh)), encoding="utf-8")
