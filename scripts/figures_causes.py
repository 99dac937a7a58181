"""Measure the instruments that take a prediction apart: what switching parts off, and ranking all of them, costs.

    python scripts/figures_causes.py [--model nano] [--tokens 60] [--repeat 9] [--json]

Each figure is the median over `--repeat` in this process, after one run that is not counted. `MEASURES` has the goals; add
a function there to measure another instrument.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import HEAD, Intervention, ModelPart
from tui_llm.facts.request import Question, Request, Target
from tui_llm.instruments.ablate.changes import effects_of_all
from tui_llm.instruments.ablate.question import AblateQuestion
from tui_llm.instruments.backward.question import BackwardQuestion
from tui_llm.instruments.block.question import BlockQuestion
from tui_llm.instruments.lens.question import LensGridQuestion
from tui_llm.instruments.why.question import NeuronsQuestion, WhyQuestion

SENTENCE = "Once upon a time, there was a little girl who liked to play outside in the sun with her red ball. "


@dataclass(frozen=True)
class Subject:
    """An open model and a text of so many tokens."""

    engine: PipelineEngine
    request: Request


def heads(subject: Subject) -> Iterator[tuple[Intervention, ...]]:
    """Another head off each time, so that nothing is cached."""
    weights = subject.engine.weights()
    places = itertools.product(range(weights.layers), range(weights.heads))
    return itertools.cycle([(Intervention(ModelPart(HEAD, *place)),) for place in places])


def reading(subject: Subject) -> Callable[[], object]:
    """One ablation to all panes, colours by surprisal included."""
    off = heads(subject)
    return lambda: subject.engine.read(dataclasses.replace(subject.request, interventions=next(off)))


def switched_on(subject: Subject) -> Callable[[], object]:
    """The unchanged model again, whose cache was kept."""
    off = dataclasses.replace(subject.request, interventions=next(heads(subject)))

    def run() -> object:
        subject.engine.read(off)
        began = time.perf_counter()
        subject.engine.read(subject.request)
        return time.perf_counter() - began

    return run


def ablate(subject: Subject) -> Callable[[], object]:
    off = heads(subject)
    return lambda: subject.engine.answer(AblateQuestion(subject.request, next(off)))


def ranking(subject: Subject, **how: bool) -> Callable[[], object]:
    def run() -> object:
        subject.engine.release()  # the unchanged forward pass is part of it
        return effects_of_all(subject.engine.answer, subject.request, subject.engine.weights(), **how)

    return run


def why(subject: Subject) -> Callable[[], object]:
    return lambda: subject.engine.answer(WhyQuestion(subject.request))


def neurons(subject: Subject) -> Callable[[], object]:
    """The neurons of the last layer's MLP, which Enter opens."""
    engine, request = subject.engine, subject.request
    found = engine.answer(WhyQuestion(request))
    last = engine.weights().layers - 1
    asked = NeuronsQuestion(request, found.place.number, last, found.target.id, found.rival.id)
    return lambda: engine.answer(asked)


def question(kind: Callable[[Request], Question[object]]) -> Callable[[Subject], Callable[[], object]]:
    """An instrument's answer, the forward pass included."""

    def make(subject: Subject) -> Callable[[], object]:
        def run() -> object:
            subject.engine.release()
            return subject.engine.answer(kind(subject.request))

        return run

    return make


MEASURES: dict[str, tuple[Callable[[Subject], Callable[[], object]], float | None]] = {
    # name: (what is run, goal in milliseconds)
    "one ablation to all panes": (reading, 50),
    "every part on again": (switched_on, None),
    "ablate: before and after": (ablate, None),
    "effect of all parts, zero": (ranking, 500),
    "why this token": (why, 50),
    "why: neurons of an MLP": (neurons, None),
    "effect of all parts, mean": (lambda subject: ranking(subject, mean=True), 500),
    "the whole lens": (question(LensGridQuestion), 100),
    "one block at one token": (question(BlockQuestion), None),
    "backward pass": (question(BackwardQuestion), None),
}


def milliseconds(run: Callable[[], object], repeat: int) -> float:
    """The median time; of a function that returns a time, in seconds, the median of that."""
    run()
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        found = run()
        times.append(found if isinstance(found, float) else time.perf_counter() - began)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    engine = PipelineEngine("cpu")
    engine.open(options.model)
    ids = engine.tokenizer.encode(SENTENCE * (1 + options.tokens // 10))[: options.tokens]
    request = Request(continuation=tuple(ids), target=Target(id=ids[0]), scores=True)
    subject = Subject(engine, request)
    found = {name: milliseconds(make(subject), options.repeat) for name, (make, _) in MEASURES.items()}
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.model}, {len(ids)} tokens, medians of {options.repeat}")
    for name, value in found.items():
        goal = MEASURES[name][1]
        verdict = "" if goal is None else f"   goal {goal:g} ms: {'met' if value <= goal else 'NOT met'}"
        print(f"{name:28} {value:9.1f} ms{verdict}")


if __name__ == "__main__":
    main()
