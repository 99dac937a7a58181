"""The Logits pane shows two sums, of the logits and of logits ÷ T: each has its own name, and is cut at no width."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import answered, make_app, until

from tui_llm.facts.sampler import SamplerSettings
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.lab.panes.logits import LogitsPane


def shown(pane: LogitsPane) -> str:
    lines = (pane._text_at(y, pane.line_width).plain for y in range(pane.scrollable_content_region.height))
    return " ".join(" ".join(lines).split())


def drawn_with(pane: LogitsPane) -> SamplerSettings | None:
    return None if pane.distribution is None else pane.distribution.sampler


@pytest.mark.parametrize("penalty", [1.0, 1.5])
@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_each_sum_has_the_name_of_its_logits(size: tuple[int, int], penalty: float) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        pane = lab.query_one(LogitsPane)
        await answered(pilot, lab)
        await pilot.press("escape", "2")
        lab.lab.sampler = dataclasses.replace(lab.lab.sampler, repetition_penalty=penalty)
        await pilot.press("left_square_bracket")  # a lower temperature
        await until(pilot, lambda: drawn_with(pane) == lab.lab.sampler)
        await answered(pilot, lab)
        distribution = pane.distribution
        assert distribution is not None
        assert f"logsumexp of logits {fmt.number(distribution.logsumexp)}" in shown(pane)
        await pilot.press("C")
        await until(pilot, lambda: pane.stage == 1)
        await answered(pilot, lab)
        assert f"logsumexp of {'penalised ' * (penalty != 1)}logits ÷ T" in shown(pane)
        assert f"= {fmt.number(distribution.log_total)}" in shown(pane)
        assert fmt.number(distribution.log_total) != fmt.number(distribution.logsumexp)
