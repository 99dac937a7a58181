"""The top line: which model the numbers are from, and whether they are exact."""

from __future__ import annotations

import dataclasses

import pytest
from fake_engine import FakeEngine
from helpers import drawn, make_app, unsafe, until

from tui_llm.facts.model import ModelChoices, Weights


class Kept(FakeEngine):
    def __init__(self, dtype: str) -> None:
        super().__init__()
        self.dtype = dtype

    def open(self, model: str) -> Weights:
        self.weights = dataclasses.replace(super().open(model), dtype=self.dtype)
        return self.weights


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ("fp32", " nano  2.6 M parameters"),
        ("half", " nano [half-precision weights]  "),
        ("int8", " nano [int8 weights: results differ]  "),
        ("[/]\x1b\u202e", " nano [[/]␛\\u202e weights]"),
    ],
)
async def test_inexact_weights_are_named(dtype: str, said: str) -> None:
    app = make_app(Kept(dtype))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "nano" in drawn(app)[0])
        assert drawn(app)[0].startswith(said), drawn(app)[0]
        assert not unsafe(drawn(app)[:1])


class Chosen(FakeEngine):
    def open(self, model: str) -> Weights:
        self.weights = dataclasses.replace(
            super().open(model), choices=ModelChoices(tied=False, start="<s>\x1b", starts=True)
        )
        return self.weights


async def test_unusual_choices_are_said_before_the_usual_ones() -> None:
    app = make_app(Chosen())
    async with app.run_test(size=(200, 24)) as pilot:
        await until(pilot, lambda: "untied head" in drawn(app)[0])
        assert "no <s>␛ in front, which the model expects" in drawn(app)[0]
        assert not unsafe(drawn(app)[:1])
        await pilot.resize_terminal(120, 24)
        await until(pilot, lambda: "vocabulary" not in drawn(app)[0])
        assert "untied head" in drawn(app)[0]
