"""Making Kameleoon forget: the words that confirm it, the body, and that nothing of the visitor is left there."""

from __future__ import annotations

import pytest

from analytics_platform.core.errors import ConfigurationError, ForeignOrigin, VendorUnavailable
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.sandbox import faults
from analytics_platform.vendors.kameleoon.erasure import MAX_FORGET_BYTES, KameleoonErasure, confirmation_phrase
from analytics_platform.vendors.kameleoon.outbound import VisitEvent
from analytics_platform_tests.vendors.kameleoon.conftest import OPT_IN, VISIBLE_SECONDS, Site


def test_a_forgotten_visitor_is_gone_with_all_that_was_written(site: Site) -> None:
    stays, gone = site.visitors[0], site.visitors[-3]
    before = site.visits(stays)
    linked = VisitEvent.custom_data(index=3, values=[site.new], is_mapping_identifier=True, visitor_code=gone)
    site.writer.post_events(site_code=site.code, events=[linked])
    site.writer.write_maps(site_code=site.code, maps={gone: {"tier": "gold"}, stays: {"tier": "gold"}})
    site.sandbox.context.advance(VISIBLE_SECONDS)
    assert len(site.visits(gone)) > 1
    assert site.visits(mapping_value=site.new)
    site.erasure.forget(
        site_code=site.code, visitor_codes=[gone], confirm=Confirmation(confirmation_phrase(site.code, [gone]))
    )
    assert len(site.visits(gone)) > 1, "accepted is not yet done"
    site.sandbox.context.advance(VISIBLE_SECONDS)
    assert site.visits(gone) == []
    assert site.visits(mapping_value=site.new) == []
    assert site.client.stored_maps(site_code=site.code, keys=[gone, stays]) == {stays: {"tier": "gold"}}
    assert site.visits(stays) == before


def test_a_forgotten_visitor_may_return_without_a_past(site: Site) -> None:
    code = site.visitors[-4]
    site.forget(code)
    site.writer.post_events(site_code=site.code, visitor_code=code, events=[VisitEvent.activity(clicks=1)])
    site.sandbox.context.advance(VISIBLE_SECONDS)
    (visit,) = site.visits(code)
    assert visit["pageEvents"] == []


def test_the_words_count_each_visitor_once_and_name_the_site(site: Site) -> None:
    assert confirmation_phrase("f17", ["a", "b", "a"]) == "forget 2 visitors at f17"
    for phrase in ("", "yes", f"forget 2 visitors at {site.code}", "forget 1 visitors at elsewhere"):
        with pytest.raises(ConfigurationError, match="was not confirmed"):
            site.erasure.forget(site_code=site.code, visitor_codes=[site.new], confirm=Confirmation(phrase))
    assert site.sandbox.requests.count(path="/visit/forget") == 0


def test_many_visitors_are_sent_in_bodies_the_vendor_takes(site: Site) -> None:
    codes = [f"{number:0100d}" for number in range(MAX_FORGET_BYTES // 101 + 5)]
    site.forget(*codes)
    answers = [record.status for record in site.sandbox.requests.records(path="/visit/forget")]
    assert answers == [204, 204]


def test_forgetting_is_asked_for_again_while_the_vendor_is_away(site: Site) -> None:
    site.sandbox.faults.add("kameleoon", "/visit/forget", fault=faults.status(503))
    site.forget(site.new)
    assert site.sandbox.requests.count(path="/visit/forget") == 2
    site.sandbox.faults.add("kameleoon", "/visit/forget", fault=faults.status(503), times=9)
    with pytest.raises(VendorUnavailable):
        site.forget(site.new)


@pytest.mark.parametrize("codes", [[], [""], ["x" * 101], ["two\nlines"]])
def test_what_is_no_line_is_refused(site: Site, codes: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        site.forget(*codes)
    assert site.sandbox.requests.count(path="/visit/forget") == 0


def test_it_is_agreed_to_and_can_do_nothing_else(site: Site) -> None:
    with pytest.raises(ConfigurationError):
        site.connected(KameleoonErasure, opt_in=WriteOptIn(vendor="smartlook", reason="tests"))
    with pytest.raises(ForeignOrigin):
        site.connected(KameleoonErasure, opt_in=OPT_IN)._http.request("POST", "/visit/events", endpoint="test")
