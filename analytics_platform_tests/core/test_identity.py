"""References to persons: SQL and Python agree, generic values are nobody, no hash without key and agreement."""

from __future__ import annotations

import hashlib
import hmac

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analytics_platform.core.errors import ConfigurationError
from analytics_platform.core.identity import GENERIC_VALUES, PersonKey, person_key, person_ref_sql, without_references
from analytics_platform.settings import Home, Settings, Site, load_settings

SECRET = "0123456789abcdef0123456789abcdef"
KEY = PersonKey(secret=SECRET, sites=frozenset({"shop", "blog"}))
PERSON = "Ada.Costa@Example.org"

_ENGINE = duckdb.connect()
KEY.install(_ENGINE, site="shop")


def by_sql(value: str | None, engine: duckdb.DuckDBPyConnection = _ENGINE) -> str | None:
    sql = f"SELECT {person_ref_sql('v')} FROM (SELECT CAST(? AS VARCHAR) AS v)"
    found: str | None = engine.execute(sql, [value]).fetchall()[0][0]
    return found


def site(key: str, *, links: bool) -> Site:
    return Site.model_validate({"key": key, "start_date": "2026-10-05", "links_identities": links})


@given(st.one_of(st.none(), st.text(st.characters(min_codepoint=32, max_codepoint=0x17F), max_size=40)))
@example("o'neil@x.de")
@example("  shop-17 ")
@example("a@b@c.test")
@example("@")
@example("000-000")
@example("00\xa0")
@example("0İ")
@example("İnci@x.de")
@example("ΝΙΚΟΣ@x.gr")
@settings(max_examples=150, deadline=None)
def test_the_lake_hashes_as_python_does(value: str | None) -> None:
    assert by_sql(value) == KEY.reference(value, site="shop")


def test_a_reference_is_an_hmac_of_kind_site_and_value() -> None:
    key = hashlib.sha256(SECRET.encode()).digest()
    expected = hmac.new(key, b"email\x1fshop\x1fada.costa@example.org", hashlib.sha256).hexdigest()
    assert by_sql(PERSON) == f"{KEY.version}:{expected}"
    assert len(KEY.version) == 8


def test_an_email_has_no_case_and_a_login_has() -> None:
    assert by_sql(" ADA.costa@example.ORG ") == by_sql(PERSON)
    assert by_sql("Shop-17") != by_sql("shop-17")


@pytest.mark.parametrize(
    "value",
    [*sorted(GENERIC_VALUES), "GUEST", " Anonymous ", "guest@shop.de", "noreply@shop.de", "jane@test.com",
     "jane@some.test", "jane@x.invalid", "0", "0000", "00-00", "-", "ab", "", "  "],
)  # fmt: skip
def test_a_value_everybody_shares_is_nobody(value: str) -> None:
    assert by_sql(value) is None
    assert KEY.reference(value, site="shop") is None


def test_a_person_of_two_sites_has_nothing_in_common() -> None:
    assert KEY.reference(PERSON, site="blog") != KEY.reference(PERSON, site="shop")


def test_another_key_makes_other_references_and_says_so() -> None:
    rotated = PersonKey(secret=SECRET + "0", sites=KEY.sites)
    old, new = KEY.reference(PERSON, site="shop"), rotated.reference(PERSON, site="shop")
    assert old is not None
    assert new is not None
    assert KEY.version != rotated.version
    assert old.split(":")[1] != new.split(":")[1]
    assert new.startswith(rotated.version)


def test_without_a_key_and_where_the_site_did_not_agree_there_is_no_reference() -> None:
    with duckdb.connect() as engine:
        assert by_sql(PERSON, engine) is None
        KEY.install(engine, site="elsewhere")
        assert by_sql(PERSON, engine) is None
    assert KEY.reference(PERSON, site="elsewhere") is None


def test_the_key_is_of_the_environment_and_the_sites_that_agreed(tmp_path: object) -> None:
    def of(key: str | None, *links: bool) -> PersonKey | None:
        sites = tuple(site(f"s{number}", links=link) for number, link in enumerate(links))
        return person_key(Settings(home=Home(root="."), sites=sites, identity_key=key))

    assert of(None, True) is None
    assert of(SECRET, False, False) is None
    made = of(SECRET, False, True)
    assert made is not None
    assert made.sites == {"s1"}


def test_nothing_shows_the_key() -> None:
    environment = {"ANALYTICS_PLATFORM_IDENTITY_KEY": SECRET, "ANALYTICS_PLATFORM_HOME": "nowhere"}
    settings_read = load_settings(environment)
    assert settings_read.identity_key == SECRET
    assert SECRET not in f"{settings_read!r} {KEY!r} {person_ref_sql('v')}"


def test_a_guessable_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ANALYTICS_PLATFORM_IDENTITY_KEY is shorter"):
        PersonKey(secret="hunter2", sites=frozenset({"shop"}))


def test_a_query_without_references_has_nulls_in_their_place() -> None:
    query = (
        f"SELECT {person_ref_sql('v')} AS a, v, CASE WHEN true THEN {person_ref_sql('v')} END AS b FROM (SELECT ? AS v)"
    )
    assert _ENGINE.execute(without_references(query), [PERSON]).fetchall() == [(None, PERSON, None)]
    assert _ENGINE.execute(query, [PERSON]).fetchall() == [(by_sql(PERSON), PERSON, by_sql(PERSON))]
    assert "sha256" not in without_references(query)
