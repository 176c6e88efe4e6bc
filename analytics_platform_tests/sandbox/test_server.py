"""The sandbox as a server: ports, settings, request log, every fault on a real socket, start and stop."""

from __future__ import annotations

import gzip
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date

import httpx
import pytest
import yaml

from analytics_platform.sandbox import faults
from analytics_platform.sandbox.server import VENDORS, Sandbox
from analytics_platform.sandbox.truth import World, generate

DOMAIN_PATH = "/api/v1/domain"


@pytest.fixture(scope="module")
def world() -> World:
    return generate(first_day=date(2026, 10, 14), days=1, scale=0.1)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Sandbox]:
    with Sandbox(world) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    running.faults.clear()
    running.requests.clear()
    yield running
    running.faults.clear()


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.base_urls["pirsch"], trust_env=False, timeout=10) as http:
        secret = sandbox.context.credentials
        body = {"client_id": secret.pirsch_client_id, "client_secret": secret.pirsch_client_secret}
        token = http.post("/api/v1/token", json=body).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        sandbox.requests.clear()
        yield http


def statistics(sandbox: Sandbox) -> str:
    site = sandbox.world.sites[0]
    return f"/api/v1/statistics/hours?id={site.pirsch_domain_id}&from=2026-10-14&to=2026-10-14"


def test_every_port_is_loopback_and_the_token_host_is_another_origin(sandbox: Sandbox) -> None:
    assert set(sandbox.base_urls) == {*VENDORS, "kameleoon_auth"}
    assert len(set(sandbox.base_urls.values())) == 6
    assert all(re.fullmatch(r"http://127\.0\.0\.1:\d+", url) for url in sandbox.base_urls.values())


def test_environment_names_every_variable_of_the_public_interface(sandbox: Sandbox) -> None:
    got = sandbox.environment()
    assert set(got) == {
        "SMARTLOOK_API_TOKEN", "SMARTLOOK_API_TOKEN_BLOG", "SMARTLOOK_BASE_URL", "INSPECTLET_USERNAME",
        "INSPECTLET_API_TOKEN", "INSPECTLET_BASE_URL", "PIRSCH_CLIENT_ID", "PIRSCH_CLIENT_SECRET", "PIRSCH_BASE_URL",
        "KAMELEOON_CLIENT_ID",
        "KAMELEOON_CLIENT_SECRET", "KAMELEOON_BASE_URL", "KAMELEOON_AUTH_URL", "KISSMETRICS_API_TOKEN",
        "KISSMETRICS_BASE_URL",
    }  # fmt: skip
    assert (len(got["PIRSCH_CLIENT_ID"]), len(got["PIRSCH_CLIENT_SECRET"])) == (32, 64)
    assert all(value.isascii() and not re.search(r"\s", value) for value in got.values())


def test_sites_yaml_is_plain_and_complete(sandbox: Sandbox) -> None:
    text = sandbox.sites_yaml()
    assert "&id" not in text
    shop, blog = yaml.safe_load(text)["sites"]
    assert (shop["key"], shop["timezone"], shop["start_date"]) == ("shop", "Europe/Berlin", date(2026, 10, 14))
    assert shop["vendors"]["smartlook"] == {"api_token_env": "SMARTLOOK_API_TOKEN", "region": "eu", "plan": "addon"}
    assert blog["vendors"]["smartlook"]["api_token_env"] == "SMARTLOOK_API_TOKEN_BLOG"
    assert set(blog["vendors"]) == set(VENDORS)
    assert shop["vendors"]["kameleoon"]["visitor_sample"] == 0.2


def test_requests_are_logged_without_the_credential(sandbox: Sandbox, client: httpx.Client) -> None:
    client.get(DOMAIN_PATH, params={"id": "nobody"})
    httpx.get(sandbox.base_urls["pirsch"] + DOMAIN_PATH, trust_env=False)
    seen, blind = sandbox.requests.records(vendor="pirsch", path="/domain")
    assert (seen.method, seen.path, seen.query, seen.status) == ("GET", DOMAIN_PATH, "id=nobody", 200)
    assert (seen.authorization_seen, blind.authorization_seen, blind.status) == (True, False, 401)
    assert sandbox.requests.count(vendor="smartlook") == 0
    assert client.headers["Authorization"].split()[1] not in repr(sandbox.requests.records())


def test_answers_are_compressed_only_for_those_who_ask(sandbox: Sandbox, client: httpx.Client) -> None:
    plain = client.get(statistics(sandbox), headers={"Accept-Encoding": "identity"})
    squeezed = client.get(statistics(sandbox), headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert squeezed.headers["content-encoding"] == "gzip"
    assert plain.content == squeezed.content
    assert int(squeezed.headers["content-length"]) < len(plain.content)


def test_a_status_fault_replaces_the_answer_for_the_ordered_requests_only(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    order = faults.status(429, headers={"Retry-After": "7"}, body='{"error":["slow down"]}')
    sandbox.faults.add("pirsch", "GET /api/v1/domain", nth=2, times=2, fault=order)
    answers = [client.get(DOMAIN_PATH) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 429, 429, 200]
    assert answers[1].headers["retry-after"] == "7"
    assert answers[1].json() == {"error": ["slow down"]}
    assert sandbox.requests.count(vendor="pirsch", status=429) == 2


def test_faults_match_vendor_and_pattern(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.faults.add("kissmetrics", "domain", fault=faults.status(500))
    sandbox.faults.add("*", re.compile(r"/domain\?id=x$"), fault=faults.status(503))
    assert client.get(DOMAIN_PATH).status_code == 200
    assert client.get(DOMAIN_PATH, params={"id": "x"}).status_code == 503


@pytest.mark.parametrize("after", [0, 5])
def test_reset_tears_the_connection(sandbox: Sandbox, client: httpx.Client, after: int) -> None:
    sandbox.faults.add("pirsch", "/domain", fault=faults.reset(after))
    with pytest.raises(httpx.TransportError):
        client.get(DOMAIN_PATH)
    assert client.get(DOMAIN_PATH).status_code == 200


def test_cut_body_sends_less_than_announced(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.faults.add("pirsch", "/domain", fault=faults.cut_body(0.5))
    with pytest.raises(httpx.RemoteProtocolError, match=r"incomplete|without sending complete"):
        client.get(DOMAIN_PATH)


def test_cut_gzip_is_consistent_except_for_its_end(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.faults.add("pirsch", "/hours", fault=faults.cut_gzip(0.6))
    with client.stream("GET", statistics(sandbox), headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert int(answer.headers["content-length"]) == len(raw)
    with pytest.raises(EOFError):
        gzip.decompress(raw)


@pytest.mark.parametrize("kind", faults.BAD_JSON_KINDS)
def test_bad_json_is_refused_by_a_strict_reader(sandbox: Sandbox, client: httpx.Client, kind: str) -> None:
    sandbox.faults.add("pirsch", "/domain", fault=faults.bad_json(kind))
    body = client.get(DOMAIN_PATH).content
    assert not strictly_valid(body)


def strictly_valid(body: bytes) -> bool:
    def no_constant(text: str) -> float:
        raise ValueError(text)

    def number(text: str) -> float:
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise ValueError(text)
        return value

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("duplicate key")
        return dict(pairs)

    try:
        value = json.loads(
            body.decode("utf-8"), parse_constant=no_constant, parse_float=number, object_pairs_hook=unique
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return False
    return True


def test_redirect_drip_delay_and_bomb(sandbox: Sandbox, client: httpx.Client) -> None:
    for fault in (faults.redirect("http://127.0.0.1:9/"), faults.drip(0.05, pieces=5), faults.delay(0.05)):
        sandbox.faults.add("pirsch", "/domain", fault=fault)
        answer = client.get(DOMAIN_PATH)
        assert answer.status_code == (302 if fault.kind == "redirect" else 200)
        sandbox.faults.clear()
    sandbox.faults.add("pirsch", "/domain", fault=faults.bomb(5_000_000, layers=2))
    with client.stream("GET", DOMAIN_PATH) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip, gzip"
    assert len(raw) < 5_000
    assert len(gzip.decompress(gzip.decompress(raw))) >= 5_000_000


def test_faults_and_log_over_http(sandbox: Sandbox, client: httpx.Client) -> None:
    order = {"vendor": "pirsch", "route": "/domain", "times": 1, "fault": {"kind": "status", "code": 500}}
    assert client.post("/_sandbox/faults", json=[order]).json() == {"ordered": True}
    assert [client.get(DOMAIN_PATH).status_code for _ in range(2)] == [500, 200]
    counts = client.get("/_sandbox/requests").json()
    assert counts["requests"] == 2
    assert {"vendor": "pirsch", "method": "GET", "path": DOMAIN_PATH, "status": 500, "count": 1} in counts["by_route"]
    assert client.delete("/_sandbox/requests").json() == {"requests": 0}
    assert client.post("/_sandbox/faults", content=b"{}").status_code == 400
    assert client.post("/_sandbox/faults", content=b"nonsense").status_code == 400
    assert client.get("/_sandbox/other").status_code == 404


def test_kameleoon_tokens_come_from_their_own_host(sandbox: Sandbox) -> None:
    got = sandbox.environment()
    pair = (got["KAMELEOON_CLIENT_ID"], got["KAMELEOON_CLIENT_SECRET"])
    grant = {"grant_type": "client_credentials"}
    url = got["KAMELEOON_AUTH_URL"] + "/oauth/token"
    with httpx.Client(trust_env=False) as http:
        in_body = http.post(url, data={**grant, "client_id": pair[0], "client_secret": pair[1]})
        basic = http.post(url, data=grant, auth=pair)
        wrong = http.post(url, data=grant, auth=(pair[0], "nope"))
        no_grant = http.post(url, auth=pair)
    assert in_body.json()["expires_in"] == basic.json()["expires_in"] == 7200
    assert in_body.json()["access_token"] != basic.json()["access_token"]
    assert sandbox.context.token_store("kameleoon").is_valid(basic.json()["access_token"])
    assert (wrong.status_code, no_grant.status_code) == (401, 400)


def test_only_the_named_vendors_are_served(world: World) -> None:
    with Sandbox(world, vendors=["pirsch"]) as sandbox:
        assert set(sandbox.base_urls) == {"pirsch", "kameleoon_auth"}
    with pytest.raises(ValueError, match="no such vendor"):
        Sandbox(world, vendors=["pirch"])


def test_stop_frees_the_ports_and_start_twice_is_refused(world: World) -> None:
    sandbox = Sandbox(world)
    with sandbox:
        port = int(sandbox.base_urls["pirsch"].rpartition(":")[2])
        with pytest.raises(RuntimeError, match="already"):
            sandbox.start()
    sandbox.stop()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with Sandbox(world, ports={"pirsch": port}) as again:
        assert again.base_urls["pirsch"].endswith(f":{port}")


def test_serve_blocks_until_the_signal() -> None:
    script = (
        "from datetime import date\n"
        "from analytics_platform.sandbox.server import serve\n"
        "from analytics_platform.sandbox.truth import generate\n"
        "world = generate(first_day=date(2026, 10, 14), days=1, scale=0.05)\n"
        "serve(world, on_ready=lambda sandbox: print(sandbox.base_urls['pirsch'], flush=True))\n"
        "print('stopped', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(url + DOMAIN_PATH, trust_env=False).status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read().strip() == "stopped"
        assert process.wait(10) == 0
