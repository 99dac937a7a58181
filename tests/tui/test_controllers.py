"""The lab's controllers, each without a screen and without the others; and what the lab screen registers for them."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_engine import FakeEngine
from helpers import make_app

from tui_llm.facts.request import Target
from tui_llm.tui.lab.candidate_table import CandidateTableController
from tui_llm.tui.lab.panes.logits import KEYS, LogitsPane
from tui_llm.tui.lab.sampler import SamplerController
from tui_llm.tui.lab.target import TargetController
from tui_llm.tui.lab.token_cursor import TokenCursorController
from tui_llm.tui.lab.token_settings import TokenSettingsController
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.lab import Lab

PROMPT = "The cat sat"


@pytest.fixture
def told() -> list[str]:
    """The lines that the user is notified of."""
    return []


@pytest.fixture
def calls() -> list[str]:
    """The names of the context's functions that are called."""
    return []


@pytest.fixture
def context(told: list[str], calls: list[str]) -> LabContext:
    def nothing(*_arguments: object, **_named: object) -> None: ...

    def notify(line: str, **_options: object) -> None:
        told.append(line)

    screen = SimpleNamespace(notify=notify, post_message=nothing, set_timer=nothing, set_interval=nothing)
    made = LabContext(cast(Any, screen), Lab(PROMPT), FakeEngine)
    for name in LabContext.__annotations__:
        setattr(made, name, lambda *_arguments, name=name: calls.append(name))
    return made


def test_the_lab_registers_every_function_of_the_context() -> None:
    context = make_app().lab_screen.context
    assert LabContext.__annotations__
    assert all(callable(getattr(context, name)) for name in LabContext.__annotations__)


def test_the_sampler_requests_a_reading_and_shows_new_settings_before_the_model_is_open(
    context: LabContext, calls: list[str]
) -> None:
    sampler = SamplerController(context)
    sampler.temperature(-1)
    assert context.lab.sampler.temperature == 0.7 and calls == ["refresh_generation", "request_reading"]
    calls.clear()
    context.weights = FakeEngine().open("nano")
    sampler.top_p(1)
    assert context.lab.sampler.top_p == 0.95 and calls == ["request_reading"]


def test_the_token_cursor_moves_within_the_tokens_that_were_read(context: LabContext, calls: list[str]) -> None:
    cursor = TokenCursorController(context)
    cursor.move(-1)
    assert context.lab.position is None and not calls, "there is no reading yet"
    engine = FakeEngine()
    engine.open("nano")
    context.reading = engine.read(context.lab.request())
    count = len(context.reading.prompt_ids)
    for move, position in ((-1, count - 1), (-99, 0), (1, 1), (99, None)):
        cursor.move(move)
        assert context.lab.position == position
    cursor.move_to(0)
    cursor.move_to(-1)
    assert context.lab.position is None and set(calls) == {"request_reading"}


def test_the_target_is_told_when_its_space_is_not_typed(context: LabContext, calls: list[str], told: list[str]) -> None:
    target = TargetController(context)
    target.set(Target(text="dog"))
    target.toggle_space()
    assert context.lab.target == Target(text=" dog") and calls == ["request_reading"] * 2
    target.set(Target(id=3))
    target.toggle_space()
    assert context.lab.target == Target(id=3) and "press t to type one" in told[-1]


def test_a_model_without_a_chat_template_keeps_the_plain_text(
    context: LabContext, calls: list[str], told: list[str]
) -> None:
    context.weights = FakeEngine().open("nano")
    TokenSettingsController(context).toggle_chat()
    assert not context.lab.chat and not calls and "nano has no chat template" in told[-1]


def test_the_candidate_table_has_each_command_of_the_panes_keys(context: LabContext) -> None:
    named = {found[1] for key in KEYS if (found := re.fullmatch(r"table\('(\w+)'\)", key.action))}
    assert named == set(CandidateTableController(context, LogitsPane(context.lab)).commands)
