"""The top line: which model the numbers are from, and whether they are exact."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from rich.cells import cell_len

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


PULLED = "HuggingFaceTB/SmolLM2-135M-Instruct"
LONG = "some-organisation/" + "a-name-" * 12
FULL = "the cat " * 40  # longer than the context


class Named(FakeEngine):
    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__()
        self.facts = facts

    def open(self, model: str) -> Weights:
        self.weights = dataclasses.replace(super().open(model), **{"device": "cuda:0", **self.facts})
        return self.weights


@pytest.mark.parametrize(
    ("facts", "prompt", "said"),
    [
        ({}, "The", " nano  2.6 M parameters · context 64 tokens · cuda:0"),
        ({"step": 1200}, "The", " nano at step 1,200  2.6 M parameters · context 64 tokens · cuda:0"),
        ({"name": PULLED}, "The", f" {PULLED}  2.6 M parameters · cuda:0"),
        ({"name": PULLED, "dtype": "int8"}, "The", f" {PULLED} [int8 weights: results differ]  cuda:0"),
        ({}, FULL, " nano sees the last 64 of 81 tokens  2.6 M parameters · cuda:0"),
        ({"name": PULLED}, FULL, f" {PULLED} sees the last 64 of 81 tokens  cuda:0"),
        ({"name": LONG}, "The", f" {LONG[:69]}…  cuda:0"),
        ({"name": LONG, "step": 7}, FULL, f" {LONG[:29]}… at step 7 sees the last 64 of 81 tokens  cuda:0"),
        (
            {"name": LONG, "dtype": "int8"},
            FULL,
            " some-organisati… sees the last 64 of 81 tokens [int8 weights: results differ]",
        ),
    ],
)
async def test_in_80_columns_the_least_important_parts_are_left_out_whole(
    facts: dict[str, Any], prompt: str, said: str
) -> None:
    app = make_app(Named(facts), prompt=prompt)
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await until(pilot, lambda: drawn(app)[0].rstrip() == said)


@pytest.mark.parametrize("name", ["nano", PULLED, LONG])
async def test_no_part_is_cut_at_any_width(name: str) -> None:
    """Also with changed parts and a followed run without a checkpoint, whose words come after the name."""
    app = make_app(Named({"name": name, "step": 12}), prompt=FULL)
    async with app.run_test(size=(200, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.top_line.words = lambda: [", waiting for a checkpoint of tales", " · changed model: heads 0.0, 0.1 off"]
        lab.top_line.show()
        bar = lab.top_line.bar
        assert bar._model is not None
        _, words, facts = bar._model
        said = [content.plain for content, _ in (*words, *facts)]
        for width in range(200, 20, -7):
            await pilot.resize_terminal(width, 24)
            await until(pilot, lambda width=width: len(drawn(app)[0]) == width)
            await pilot.pause()
            line, rest = drawn(app)[0].strip(), drawn(app)[0].strip()
            assert cell_len(line) <= width - 2
            for part in said:
                rest = rest.replace(part, "", 1)
            assert rest.replace(" · ", "").strip().rstrip("…") in name, line
            for parts in (words, facts):
                ranks = [(importance, content.plain in line) for content, importance in parts]
                dropped = max((rank for rank, there in ranks if not there), default=-1)
                assert all(rank >= dropped for rank, there in ranks if there), line
            if width >= 80:
                assert "sees the last" in line
