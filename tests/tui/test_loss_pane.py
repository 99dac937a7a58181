"""The Loss pane: the computation term by term, reference losses, the gradient's bars, the text's own next token."""

from __future__ import annotations

import math
import re

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, unsafe, until

from tui_llm.common.errors import UserError
from tui_llm.facts.request import Target
from tui_llm.instruments.gradient.question import Gradient, GradientQuestion, LogitGradient
from tui_llm.tui.app import LabApp
from tui_llm.tui.lab.panes.loss import LossPane


def gradient(engine: FakeEngine, question: GradientQuestion) -> Gradient:
    """Returns p − y of the fake engine's distribution."""
    request = question.request
    assert request.target is not None
    ids = engine.encode(request.prompt)
    likeliest = [engine.distribution(ids, request).candidates[0].id]
    wanted = (
        likeliest
        if request.target.likeliest
        else [request.target.id]
        if request.target.id is not None
        else engine.encode(request.target.text or "")
    )
    rows = engine.distribution(ids + wanted[: question.index], request).candidates
    target = wanted[question.index]
    raw = {row.id: row.raw_probability for row in rows}
    pushes = [
        LogitGradient(engine.token(id), p, p - (id == target), id == target)
        for id, p in sorted(raw.items(), key=lambda item: -abs(item[1] - (item[0] == target)))[:6]
    ]
    rest = -math.fsum(push.gradient for push in pushes)
    return Gradient(question, engine.token(target), len(wanted), tuple(pushes), 994, rest)


def app_of(hostile: bool = False, prompt: str = "The cat sat on the") -> tuple[LabApp, FakeEngine]:
    engine = FakeEngine(hostile)
    engine.answers[GradientQuestion] = lambda question: gradient(engine, question)
    return make_app(engine, prompt), engine


def lines(app: LabApp) -> list[str]:
    return [line.plain for line in app.lab_screen.query_one(LossPane)._lines]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12)])
async def test_the_computation_is_shown_with_numbers_that_add_up(size: tuple[int, int]) -> None:
    app, _ = app_of()
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "3")
        for id in (3, 40, 7, 200, 11):
            lab.lab.target = Target(id=id)
            lab.readings.request()
            await answered(pilot, lab)
            text = re.sub(r"\s+", " ", " ".join(lines(app)))
            found = re.search(r"= (\S+) − \(?(−?[\d.]+)\)? = (\S+) nats", text)
            assert found, text
            total, logit, loss = (round(float(number.replace("−", "-")) * 10**4) for number in found.groups())
            assert total - logit == loss
            for word in ("bits", "one in", "100 %", "ln V", "p − y", "−ln p"):
                assert word in text


@pytest.mark.parametrize("logit", [18.0, 15.0])
async def test_a_small_loss_is_no_zero(logit: float) -> None:
    app, _ = app_of()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.target = Target(id=3)
        lab.lab.change_logit(3, logit, lab.lab.current_request())
        lab.readings.request()
        await answered(pilot, lab)
        assert lab.reading is not None and lab.reading.loss is not None
        known, text = lab.reading.loss, re.sub(r"\s+", " ", " ".join(lines(app)))
        found = re.search(r"= (\S+) − (\S+) = (\S+) nats", text)
        assert found and 0 < known.mean < 0.1, text
        total, own, loss = (round(float(number) * 10**4) for number in found.groups())
        assert total - own == loss and loss == round(known.mean * 10**4) > 0
        assert f"surprise: {known.bits:.4f} bits · one in {known.perplexity:.3f} " in text
        assert re.search(rf"this loss {known.mean:.4f}", text)


async def test_a_small_loss_in_a_longer_target_is_no_zero() -> None:
    app, engine = app_of()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        first = engine.encode(" mat and")[0]
        lab.lab.target = Target(text=" mat and")
        lab.lab.change_logit(first, 18.0, lab.lab.current_request())
        lab.readings.request()
        await answered(pilot, lab)
        assert lab.reading is not None and lab.reading.loss is not None
        small, large = (token.loss.nats for token in lab.reading.loss.tokens)
        assert 0 < small < 0.005 and small + large > 0.2
        text = re.sub(r"\s+", " ", " ".join(lines(app)))
        assert f" {small:.4f} " in text and f"= mean {lab.reading.loss.mean:.4f} nats" in text, text


async def test_a_longer_targets_losses_sum_as_printed() -> None:
    app, _ = app_of()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.target = Target(text=" mat and dog.")
        lab.readings.request()
        await answered(pilot, lab)
        text = lines(app)
        total = next(re.search(r"sum (\S+) nats ÷ 4 tokens", line) for line in text if "sum" in line)
        at = next(index for index, line in enumerate(text) if "each given" in line)
        parts = [round(float(line.split()[-1]) * 10**4) for line in text[at + 1 : at + 5]]
        assert total and sum(parts) == round(float(total[1]) * 10**4)
        rows = list(lab.query_one(LossPane).table())
        assert [row[2] for row in rows[5:]] == ["sum", "mean", "bits", "perplexity", "ln V"]


async def test_p_shows_the_gradient_token_by_token() -> None:
    app, engine = app_of()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.target = Target(text=" moon.")
        lab.readings.request()
        await answered(pilot, lab)
        pane = lab.query_one(LossPane)
        assert not engine.questions
        await pilot.press("escape", "3", "p")
        await until(pilot, lambda: pane._gradient is not None)
        text = "\n".join(lines(app))
        assert "for token 1 of 2" in text and "◆ ·moon" in text and "994 others" in text
        shown = [float(m[1].replace("−", "-")) for m in re.finditer(r"(−?\d\.\d{3,4}) [▲▼]", text)]
        assert len(shown) == 7 and sum(round(value * 10**4) for value in shown) == 0
        assert re.search(r"◆ ·moon +−0\.\d+ ▲ █", text)
        assert "gradient p − y" in [row[-1] for row in pane.table()]
        await pilot.press("p")
        await until(pilot, lambda: pane._gradient is not None and pane._gradient.question.index == 1)
        assert "for token 2 of 2" in "\n".join(lines(app))
        await pilot.press("p")
        await pilot.pause()
        assert "994 others" not in "\n".join(lines(app))
        asked = len(engine.questions)
        lab.readings.request()
        await answered(pilot, lab)
        assert len(engine.questions) == asked  # hidden values are not computed


async def test_the_gradients_bars_follow_the_reading_and_report_problems() -> None:
    app, engine = app_of()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        pane = lab.query_one(LossPane)
        await pilot.press("escape", "3", "p")
        await until(pilot, lambda: pane._gradient is not None)
        lab.lab.target = Target(text=" dog")
        lab.readings.request()
        await until(pilot, lambda: pane._gradient is not None and pane._gradient.token.text == " dog")

        def fail(_question: GradientQuestion) -> Gradient:
            raise UserError("no gradient [/] here")

        engine.answers[GradientQuestion] = fail
        lab.lab.target = Target(text=" cat")
        lab.readings.request()
        await until(pilot, lambda: "no gradient [/] here" in "\n".join(lines(app)))


async def test_n_selects_the_texts_own_next_token_and_restores_the_target() -> None:
    app, _engine = app_of()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.target = Target(text=" dog")
        await pilot.press("escape", "3", "n")
        await until(pilot, lambda: lab.lab.target == Target(own=True))
        await answered(pilot, lab)
        assert "the text's own next token" in "\n".join(lines(app))
        await pilot.press("n")
        await until(pilot, lambda: lab.lab.target == Target(text=" dog"))


async def test_hostile_tokens_and_tiny_screens() -> None:
    app, _ = app_of(hostile=True)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        pane = lab.query_one(LossPane)
        await pilot.press("escape", "3", "p")
        for id in range(12):
            lab.lab.target = Target(id=id)
            lab.readings.request()
            await until(pilot, lambda id=id: pane._gradient is not None and pane._gradient.token.id == id)
            assert not unsafe(drawn(app))
        for width, height in ((1, 1), (5, 3), (30, 10), (200, 60)):
            await pilot.resize_terminal(width, height)
            await pilot.pause()
            assert not unsafe(drawn(app))


async def test_the_gradient_scrolls_to_the_targets_bar() -> None:
    app, _ = app_of()
    async with app.run_test(size=(80, 18)) as pilot:
        lab = app.lab_screen
        lab.lab.target = Target(id=3)
        await answered(pilot, lab)
        await pilot.press("escape", "3", "p")
        await until(pilot, lambda: "gradient p − y: moving against it" in "\n".join(drawn(app)))
        assert "◆" in "\n".join(drawn(app))
