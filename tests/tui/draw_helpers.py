"""Helpers of the drawing tests: a fake engine that answers draw questions, and drawing tokens with the keys."""

from __future__ import annotations

from fake_engine import FakeEngine
from helpers import until
from textual.pilot import Pilot

from tui_llm.facts.prediction import Candidate
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.draws.question import (
    Bin,
    Draw,
    DrawQuestion,
    Histogram,
    HistogramQuestion,
    Landing,
    TokenInterval,
)
from tui_llm.tui.lab.lab import LabScreen


def kept(engine: FakeEngine, question: DrawQuestion | HistogramQuestion, sampler: SamplerSettings) -> list[Candidate]:
    request = question.request
    ids = engine.encode(request.prompt) + list(request.continuation)
    rows = engine.distribution(ids, Request(sampler=sampler)).candidates
    return [row for row in rows if row.kept]


def answer_draw(engine: FakeEngine, question: DrawQuestion) -> Draw:
    assert engine.weights is not None
    u, landings = 0.618 if question.u is None else question.u, []
    for sampler in question.samplers:
        at, segments = 0.0, []
        for place, row in enumerate(kept(engine, question, sampler)):
            segments.append(TokenInterval(row, place, at, at + row.probability))
            at += row.probability
        hit = next((one for one in segments if u < one.stop), segments[-1])
        landings.append(Landing(sampler, hit, tuple(segments[:60]), len(segments)))
    return Draw(engine.weights, u, 1000, tuple(landings))


def answer_many(engine: FakeEngine, question: HistogramQuestion) -> Histogram:
    assert engine.weights is not None
    rows = kept(engine, question, question.request.sampler)
    n = question.count
    bins = tuple((row, Bin(round(n * row.probability), n * row.probability, 3.25, -3.5)) for row in rows[:20])
    return Histogram(
        engine.weights, question.request.sampler, question.seed, n, len(rows), bins, Bin(3, 2.5, 1.5, 0.3), 7, 12.5, 11, 0.33
    )  # fmt: skip


def make_engine(hostile: bool = False) -> FakeEngine:
    engine = FakeEngine(hostile)
    engine.answers[DrawQuestion] = lambda question: answer_draw(engine, question)
    engine.answers[HistogramQuestion] = lambda question: answer_many(engine, question)
    return engine


async def draw_tokens(pilot: Pilot[None], lab: LabScreen, count: int) -> None:
    for _ in range(count):
        had = len(lab.lab.steps)
        await pilot.press("g")
        await until(pilot, lambda: len(lab.lab.steps) == had + 1 and lab.generation.job is None)  # noqa: B023
