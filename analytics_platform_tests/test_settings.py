"""sites.yaml and the environment: typed, all faults at once, and no secret needed."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.settings import Home, Settings, load_settings

SITES = """
sites:
  - key: shop
    timezone: Europe/Berlin
    start_date: 2026-09-01
    hostname: shop.example
    vendors:
      smartlook:   {api_token_env: SMARTLOOK_API_TOKEN, region: eu, plan: paid}
      inspectlet:  {wid: 12345678}
      kissmetrics:
  - key: blog
    start_date: 2026-08-01
"""


def load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "sites.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings({"ANALYTICS_PLATFORM_HOME": str(tmp_path / "h"), "ANALYTICS_PLATFORM_CONFIG": str(path)})


def test_sites_are_typed_and_ids_are_text(tmp_path: Path) -> None:
    settings = load(tmp_path, SITES)
    shop, blog = settings.sites
    assert (settings.site_keys, settings.start_date) == (("shop", "blog"), date(2026, 8, 1))
    assert (shop.timezone, shop.hostname, blog.timezone) == ("Europe/Berlin", "shop.example", "UTC")
    assert (shop.ids("inspectlet"), shop.ids("kissmetrics"), shop.ids("pirsch")) == ({"wid": "12345678"}, {}, None)
    assert settings.sites_with("smartlook") == (shop,)
    assert settings.site("blog") is blog


def test_an_unknown_site_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"No site 'shpo'.*Use one of: shop, blog"):
        load(tmp_path, SITES).site("shpo")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sites: [{key: Shop, start_date: 2026-01-01}]", "must match"),
        ("sites: [{key: ../x, start_date: 2026-01-01}]", "must match"),
        ("sites: [{key: 'a|b', start_date: 2026-01-01}]", "must match"),
        ('sites: [{key: "a\\n", start_date: 2026-01-01}]', "must match"),
        ("sites: [{key: a, start_date: 2026-01-01, timezone: Europe/Belin}]", "IANA"),
        ("sites: [{key: a, start_date: 2026-01-01, timezone: ../../etc/passwd}]", "IANA"),
        ("sites: [{key: a, start_date: yesterday}]", "start_date"),
        ("sites: [{key: a}]", "start_date"),
        ("sites: [{key: a, start_date: 2026-01-01, tokn: x}]", "tokn"),
        ("sites: [{key: a, start_date: 2026-01-01, vendors: [smartlook]}]", "vendors"),
        ("sites: [{key: a, start_date: 2026-01-01}, {key: a, start_date: 2026-01-01}]", "used twice: a"),
        ("sites: {a: 1}", "sites"),
        ("", "file"),
        ("sites: [", "not YAML"),
        ("\tsites: []", "not YAML"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_file_and_the_field(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sites\.example\.yaml") as caught:
        load(tmp_path, text)
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_bytes_that_are_no_text_are_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "sites.yaml"
    path.write_bytes(b"sites: \xff\xfe")
    with pytest.raises(ConfigurationError, match=r"sites\.example\.yaml"):
        load_settings({"ANALYTICS_PLATFORM_CONFIG": str(path)})


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, "sites: [{key: A, start_date: x, timezone: Nowhere}]")
    for part in ("sites.0.key", "sites.0.start_date", "sites.0.timezone"):
        assert part in str(caught.value)


def test_a_named_file_must_exist_and_an_unnamed_one_need_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="ANALYTICS_PLATFORM_CONFIG names"):
        load_settings({"ANALYTICS_PLATFORM_CONFIG": str(tmp_path / "absent.yaml")})
    monkeypatch.chdir(tmp_path)
    assert load_settings({}).sites == ()


def test_where_sites_yaml_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "h"
    home.mkdir()
    (home / "sites.yaml").write_text("sites: [{key: in-home, start_date: 2026-01-01}]", encoding="utf-8")
    environment = {"ANALYTICS_PLATFORM_HOME": str(home)}
    assert load_settings(environment).site_keys == ("in-home",)
    (tmp_path / "sites.yaml").write_text("sites: [{key: here, start_date: 2026-01-01}]", encoding="utf-8")
    assert load_settings(environment).site_keys == ("here",)


def test_a_home_is_absolute_creates_nothing_and_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = load_settings({}).home
    assert home == Home(root=tmp_path / ".analytics_platform")
    for path in (home.landing, home.lake, home.warehouse, home.published, home.ledger, home.dagster, home.dbt_target):
        assert home.root in path.parents
    assert list(tmp_path.iterdir()) == []


def test_the_database_url_is_not_shown() -> None:
    settings = load_settings({"ANALYTICS_PLATFORM_DATABASE_URL": "postgresql://u:canary@h/d"})
    assert "canary" not in repr(settings)
    assert settings.database_url == "postgresql://u:canary@h/d"


WRITING = """
sites:
  - key: shop
    start_date: 2026-09-01
    vendors:
      kameleoon: {site_code: f17c21u1ag, writes: [offline_conversions, audiences], goals: {purchase: 85}}
      pirsch: {domain_id: A5kgYzK14m}
"""


def test_what_a_site_agrees_to_have_sent_is_no_id(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "sites.yaml"
    path.write_text(WRITING, encoding="utf-8")
    site = load_settings({"ANALYTICS_PLATFORM_CONFIG": str(path)}).site("shop")
    assert site.ids("kameleoon") == {"site_code": "f17c21u1ag"}
    assert site.writes_to("kameleoon") == ("offline_conversions", "audiences")
    assert site.goals_of("kameleoon") == {"purchase": 85}
    assert (site.writes_to("pirsch"), site.goals_of("pirsch"), site.writes_to("unknown")) == ((), {}, ())


@pytest.mark.parametrize(
    "wrong", ["writes: audiences", "writes: [Audiences!]", "writes: [1]", "goals: {purchase: eighty}", "goals: [85]"]
)
def test_a_wish_to_send_that_cannot_be_understood_is_refused(home: Home, tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "sites.yaml"
    path.write_text(
        WRITING.replace("goals: {purchase: 85}", wrong).replace(
            "writes: [offline_conversions, audiences], writes", "writes"
        ),
        encoding="utf-8",
    )
    with pytest.raises(ConfigurationError, match="cannot be used"):
        load_settings({"ANALYTICS_PLATFORM_CONFIG": str(path)})
