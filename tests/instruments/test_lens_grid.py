"""The lens grid against transformers' GPT-2, and its last row against the reading, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.instruments.inside_models import NAMES, TEXT, Models, models
from tests.near_ties import are_likeliest, possible_ranks
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import HEAD, PATCH, RESIDUAL, Intervention, ModelPart
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.lens.question import LensGrid, LensGridQuestion


@pytest.fixture(scope="module", params=NAMES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return models(request.param, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def nano() -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open("nano")
    return made


def test_each_cell_is_that_of_transformers(both: Models) -> None:
    found: LensGrid = both.engine.answer(LensGridQuestion(Request(prompt=TEXT), top=3))
    ids, size = both.ids(), both.engine.tokenizer.size
    body, kept = both.theirs.transformer, both.run(both.ids())
    streams = [*(kept[f"h.{layer}"][0] for layer in range(len(body.h))), kept["ln_f"][0]]
    assert len(found.rows) == len(streams) and all(len(row) == len(ids) for row in found.rows)
    assert [token.id for token in found.targets[:-1]] == ids[1:] and found.chosen == "next"
    for row, stream in zip(found.rows, streams, strict=True):
        with torch.no_grad():
            logits = both.theirs.lm_head(body.ln_f(stream))[:, :size]
        log_p = logits.log_softmax(-1)
        for at, cell in enumerate(row):
            assert are_likeliest([guess.token.id for guess in cell.guesses], logits[at])
            assert [guess.probability for guess in cell.guesses] == pytest.approx(
                [float(log_p[at, guess.token.id].exp()) for guess in cell.guesses], abs=1e-4
            )
            target = found.targets[at].id
            assert cell.probability == pytest.approx(float(log_p[at, target].exp()), abs=1e-4)
            assert cell.rank in possible_ranks(logits[at], target)
            assert cell.entropy == pytest.approx(float(-(log_p[at].exp() * log_p[at]).sum()), abs=1e-4)
            assert cell.logit == pytest.approx(float(logits[at].max()), abs=1e-4)


def test_the_last_row_is_the_reading_bit_for_bit(both: Models) -> None:
    found: LensGrid = both.engine.answer(LensGridQuestion(Request(prompt=TEXT)))
    assert len(both.ids()) == len(found.rows[-1])
    for at, cell in enumerate(found.rows[-1]):
        reading = both.engine.read(Request(prompt=TEXT, position=at + 1, target=Target(id=found.targets[at].id)))
        assert reading.distribution is not None and reading.loss is not None
        best = reading.distribution.candidates[: len(cell.guesses)]
        assert [row.id for row in best] == [guess.token.id for guess in cell.guesses]
        assert [row.raw_probability for row in best] == pytest.approx([g.probability for g in cell.guesses], rel=1e-6)
        logits = both.engine.window.logits(at + 1)
        assert np.float32(cell.logit) == logits.max() == np.float32(best[0].logit)
        assert cell.rank == reading.loss.tokens[0].loss.rank
        assert cell.entropy == pytest.approx(reading.distribution.entropy, abs=1e-12)


def test_a_part_of_the_columns_and_one_target_for_all(nano: PipelineEngine) -> None:
    whole: LensGrid = nano.answer(LensGridQuestion(Request(prompt=TEXT)))
    part: LensGrid = nano.answer(LensGridQuestion(Request(prompt=TEXT), first=3, count=2))
    assert part.targets == whole.targets[3:5] and part.rows[-1] == whole.rows[-1][3:5]
    assert (part.place.number, part.token(1)) == (3, whole.token(4))
    asked: LensGrid = nano.answer(LensGridQuestion(Request(prompt=TEXT, target=Target(text=" mat"))))
    assert {token.text for token in asked.targets} == {" mat"} and asked.chosen == "asked"
    one: LensGrid = nano.answer(LensGridQuestion(Request(prompt="Once")))
    assert one.chosen == "likeliest" and one.rows[-1][0].rank == 1


def test_a_text_longer_than_the_context(nano: PipelineEngine) -> None:
    context = nano.gpt.config.context
    found: LensGrid = nano.answer(LensGridQuestion(Request(prompt=" cat" * (context + 3)), top=1))
    assert found.place.first == found.place.number == 3 and len(found.targets) == context


def test_the_lens_of_a_changed_model(nano: PipelineEngine) -> None:
    plain: LensGrid = nano.answer(LensGridQuestion(Request(prompt=TEXT)))
    off = Request(prompt=TEXT, interventions=(Intervention(ModelPart(HEAD, 2, 1)),))
    found: LensGrid = nano.answer(LensGridQuestion(off))
    assert [row[:-1] for row in found.rows[:3]] == [row[:-1] for row in plain.rows[:3]]
    assert found.rows[3] != plain.rows[3]
    reading = nano.read(off)
    assert reading.distribution is not None
    assert reading.distribution.candidates[0].logit == found.rows[-1][-1].logit
    ids = tuple(nano.ids(Request(prompt="The dog ran to the big red house")))
    patched = Request(prompt=TEXT, interventions=(Intervention(ModelPart(RESIDUAL, 4), PATCH, ids),))
    last: LensGrid = nano.answer(LensGridQuestion(patched))
    for before, after in zip(plain.rows[:-1], last.rows[:-1], strict=True):
        assert before[:-1] == after[:-1]  # the last column's target is another one
    assert last.rows[-1] != plain.rows[-1]
    assert nano.answer(LensGridQuestion(Request(prompt=TEXT))) == plain


def test_bad_input(nano: PipelineEngine) -> None:
    with pytest.raises(UserError, match="there is no token to look from"):
        nano.answer(LensGridQuestion(Request()))
    with pytest.raises(UserError, match="the target is empty"):
        nano.answer(LensGridQuestion(Request(prompt=TEXT, target=Target(text=""))))
    with pytest.raises(UserError, match="go from 0 to 7"):
        nano.answer(LensGridQuestion(Request(prompt=TEXT), first=99))
    with pytest.raises(Overtaken):
        nano.answer(LensGridQuestion(Request(prompt="something new")), lambda: True)
