"""The question pages: one a question, every command with what it prints. Their commands are run by test_cli.py."""

from __future__ import annotations

import re

import pytest

from analytics_platform.cli import app
from analytics_platform_tests.docs.questions import PAGES, PROGRAM, Command, commands

QUESTIONS = 12


def test_there_is_a_page_for_every_question_and_the_index_leads_to_each() -> None:
    pages = sorted(path.name for path in PAGES.glob("[0-9]*.md"))
    assert [int(name[:2]) for name in pages] == list(range(1, QUESTIONS + 1))
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d\d_\w+\.md)\)", index) == pages
    assert {command.page for command in commands()} == {name.removesuffix(".md") for name in pages}


def test_every_command_is_a_verb_and_shows_what_it_prints() -> None:
    verbs = {each.name or getattr(each.callback, "__name__", "") for each in app.registered_commands}
    asked = list(commands())
    assert len(asked) >= 15
    assert {command.arguments[0] for command in asked} <= verbs
    for page in PAGES.glob("[0-9]*.md"):
        text = page.read_text(encoding="utf-8")
        assert text.count("```sh") == text.count("```text") == text.count(f"\n{PROGRAM} "), page.name


def test_every_question_has_an_answer_without_the_whole_demo() -> None:
    assert {command.page for command in commands() if not command.needs_four_weeks} == {c.page for c in commands()}


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+\.md)", page.read_text(encoding="utf-8")):
            assert (PAGES / target).is_file(), (page.name, target)


def test_dates_are_moved_into_a_smaller_home_and_plans_are_left_alone() -> None:
    command = Command("p", ("reconcile", "2026-10-29", "--day", "2026-10-01"), needs_four_weeks=False)
    assert command.within("2026-10-06").arguments == ("reconcile", "2026-10-06", "--day", "2026-10-01")
    plan = Command("p", ("plan", "2026-08-01..2026-10-31"), needs_four_weeks=False)
    assert plan.within("2026-10-06") is plan


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_pages_hold_no_secret_and_no_control_character(page: object) -> None:
    text = page.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", text)
    assert "accessResourceKey" not in text
    assert not re.search(r"[\w.]+@[\w.]+\.\w+", text)
