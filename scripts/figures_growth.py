"""Measure how processor time grows with each size that a user can make large, relative to bytes, lines or operations.

    python scripts/figures_growth.py [--weights fp32|half|int8] [--rounds 3] [--only NAME …] [--quick] [--json]

One thread, processor time, medians. Models have random weights. A typed token reads every weight and the whole KV cache
once, so its time is divided by the time in which torch sums as many bytes, measured beside it: bytes that no longer fit a
cache take longer for both. That of a whole text is divided by the time of its operations, at the rate of one large product,
plus that of reading the weights; softmax and sorting by the vocabulary, the rest by bytes, runs or lines. If a step grows
no faster, the quotient stays equal or falls down the table; it may rise by a third from a size to the next. --quick leaves
out the largest sizes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch

from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.learn import speed
from tui_llm.llm.model import fast_decode
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.predict import distribution, softmax
from tui_llm.llm.predict.window import Window

SLACK = 4 / 3  # how much a quotient may rise from one size to the next
BRIEF = 0.002  # seconds: what takes less than this is not judged; constant costs and noise are most of it
BRIEFLY, MOST = 0.2, 40  # seconds in all, and times at most, that what takes little is repeated
WORDS = "once upon a time there was a little girl who lived in a small house by the sea and she had a dog named max "


@dataclass(frozen=True)
class GrowthPoint:
    """A step's processor time in seconds at one size, and the units of work of that size."""

    step: str
    size: int
    seconds: float
    units: float

    def line(self) -> str:
        time, each = self.seconds * 1e3, self.seconds * 1e9 / self.units
        unit = "×" if "÷" in self.step else "ns a unit"
        return f"{self.step:42} {self.size:12,} {time:12.2f} ms {each:14.4g} {unit}"


def grows_faster(points: list[GrowthPoint]) -> list[str]:
    """Returns the step and size of each point whose time per unit rose by more than `SLACK`."""
    found = []
    for before, after in itertools.pairwise(points):
        if before.step == after.step and after.seconds > BRIEF:
            allowed = SLACK * max(before.seconds, BRIEF) / before.units
            found += [f"{after.step}, {after.size:,}"] if after.seconds / after.units > allowed else []
    return found


def seconds(work: Callable[[], object], before: Callable[[], object] = lambda: None, rounds: int = 3) -> float:
    """Returns the median processor time in seconds, after one uncounted warm-up; once only if it takes very long, and more
    than `rounds` times if it takes little: another machine on the same processor then spoils a few only."""
    taken: list[float] = []
    while len(taken) <= rounds or (sum(taken) < BRIEFLY and len(taken) < MOST):
        before()
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
        if taken[-1] > 3:
            return taken[-1]
    return statistics.median(taken[1:])


def reading(bytes: float, rounds: int) -> float:
    """Returns the processor time in nanoseconds in which torch sums that many bytes of float32."""
    numbers = torch.ones(max(1, round(bytes / 4)))
    return 1e9 * seconds(numbers.sum, rounds=rounds)


@functools.cache
def multiplying() -> float:
    """Returns the processor time in nanoseconds of an operation in a large float32 product."""
    a = torch.ones(512, 512)
    return 1e9 * seconds(lambda: a @ a, rounds=9) / (2 * 512**3)


def models(name: str, sizes: list[tuple[int, GPTConfig, int]], weights: str, rounds: int) -> Iterator[GrowthPoint]:
    """Measures the logits for one token after `tokens` − 1 cached ones, for all of them at once, and what follows them."""
    for at, config, tokens in sizes:
        torch.manual_seed(0)
        window = Window(fast_decode.predictor(GPT(config).eval().requires_grad_(False), weights), config.vocabulary)
        ids = random.Random(0).choices(range(config.vocabulary), k=tokens)

        def read(window: Window = window, ids: list[int] = ids) -> None:
            window.feed(ids)
            window.logits()

        read()
        # in turn with the step that it is compared with: other machines on the same processor fill its cache at times
        bytes = speed.moved(config, 1, tokens - 1, weights)
        typed = seconds(read, lambda window=window, tokens=tokens: window.crop(tokens - 1), 4 * rounds)  # type: ignore[misc]
        yield GrowthPoint(f"{name}: a typed token ÷ reading", at, typed, reading(bytes, 4 * rounds))
        whole = seconds(read, lambda window=window: window.crop(0), rounds)  # type: ignore[misc]
        bytes = speed.moved(config, tokens, 0, weights)
        units = speed.flops(config, tokens, 0) * multiplying() + reading(bytes, rounds)
        yield GrowthPoint(f"{name}: the whole text ÷ operations", at, whole, units)
        if name == "vocabulary":
            logits, sampler = window.logits(), SamplerSettings(temperature=0.8, top_k=40, top_p=0.9, min_p=0.01)

            def predict(logits: softmax.Array = logits, sampler: SamplerSettings = sampler) -> None:
                distribution.process(logits, sampler).distribution(64, lambda id: b"x")

            yield GrowthPoint(f"{name}: sorting, softmax, cuts, per token", at, seconds(predict, rounds=rounds), at)


def prompts(sizes: list[int], rounds: int) -> Iterator[GrowthPoint]:
    """Measures the first reading of a text, and the reading after one more letter at its end."""
    from tui_llm.engine import PipelineEngine

    engine = PipelineEngine("cpu")
    engine.open("nano")
    for size in sizes:
        text = (WORDS * (1 + size // len(WORDS)))[:size]
        numbers = iter(range(1_000))

        def read(text: str = text, numbers: Iterator[int] = numbers) -> None:
            engine.read(Request(prompt=f"{next(numbers)} {text}"))

        yield GrowthPoint("prompt: a reading of new text, per byte", size, seconds(read, rounds=rounds), size)

        def typed(text: str = text, numbers: Iterator[int] = numbers) -> None:
            engine.read(Request(prompt=f"{text}{next(numbers)}"))

        yield GrowthPoint("prompt: a reading after a letter, per byte", size, seconds(typed, rounds=rounds), size)


def run_lists(sizes: list[int], rounds: int) -> Iterator[GrowthPoint]:
    """Measures what the list of runs reads of all of them, and the search for the most recent one."""
    from tui_llm.common import paths
    from tui_llm.training.run.run import Run, RunConfig, runs
    from tui_llm.training.run.settings import from_fields, preset
    from tui_llm.training.run.snapshot import RunReader, most_recent

    made = 0
    config = RunConfig(("/texts/tales.txt",), "toy", "cpu", from_fields({"steps": 10}, preset("toy")))
    for size in sizes:
        while made < size:
            run = Run(paths.runs_dir() / f"run-{made:05}")
            run.path.mkdir(parents=True)
            run.write_config(config)
            run.metrics_path.write_text("".join(metric_lines(10)))
            run.write_status("finished", "", step=10, steps=10)
            made += 1
        yield GrowthPoint("runs: all of them read", size, seconds(lambda: [RunReader(r).read() for r in runs()], rounds=rounds), size)  # fmt: skip
        yield GrowthPoint("runs: the most recent one", size, seconds(most_recent, rounds=rounds), size)


def metric_lines(count: int) -> Iterator[str]:
    """Yields lines of metrics.jsonl."""
    for step in range(1, count + 1):
        yield f'{{"step": {step}, "loss": {1.5 + 4 / step}, "lr": 0.001, "grad_norm": 0.5, "tokens_per_second": 90000.0, "time": {1000000000 + step}.0}}\n'


def metrics(sizes: list[int], read_up_to: int, rounds: int) -> Iterator[GrowthPoint]:
    """Measures the first snapshot of a run, which has a whole curve already, and reading every line up to a size."""
    from tui_llm.common import paths
    from tui_llm.training.run.run import Run
    from tui_llm.training.run.snapshot import RunReader

    run = Run(paths.runs_dir() / "metrics")
    run.path.mkdir(parents=True)
    for size in sizes:
        with run.metrics_path.open("w") as file:
            file.writelines(metric_lines(size))
        yield GrowthPoint("metrics: the first snapshot, per line", size, seconds(lambda: RunReader(run).read(), rounds=rounds), size)  # fmt: skip

        def every() -> None:
            reader = RunReader(run)
            while reader.read().reading:
                pass

        if size <= read_up_to:
            yield GrowthPoint("metrics: every line read, per line", size, seconds(every, rounds=1), size)
    run.metrics_path.unlink()


def growing(weights: str, rounds: int, quick: bool) -> dict[str, Callable[[], Iterator[GrowthPoint]]]:
    """Returns what can be measured, by name."""
    contexts = [(n, GPTConfig(4096, 8192, 2, 4, 256), n) for n in (64, 512, 2048, 8192)]
    sizes = [(n, GPTConfig(n, 128, 2, 2, 128), 64) for n in (4_096, 16_384, 65_536, 200_000)]
    layers = [(n, GPTConfig(4096, 256, n, 4, 256), 128) for n in (2, 6, 12, 24)]
    texts, counts, lines = [1, 1_000, 10_000, 100_000, 1_000_000], [1, 10, 100, 1_000], [1, 1_000, 100_000, 10_000_000]
    cut = -2 if quick else None
    return {
        "context": lambda: models("context", contexts[:cut], weights, rounds),
        "vocabulary": lambda: models("vocabulary", sizes[:cut], weights, rounds),
        "layers": lambda: models("layers", layers[:cut], weights, rounds),
        "prompt": lambda: prompts(texts[:cut], rounds),
        "runs": lambda: run_lists(counts[:cut], rounds),
        "metrics": lambda: metrics(lines[:cut], 100_000, rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="fp32", choices=("fp32", "half", "int8"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="context, vocabulary, layers, prompt, runs, metrics")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="print the points as JSON")
    options = parser.parse_args()
    if (
        os.environ.get("OMP_NUM_THREADS") != "1"
    ):  # read at the process's start; a second thread's waiting would be counted
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
    points: list[GrowthPoint] = []
    if not options.json:
        print(f"torch {torch.__version__}, one thread, {options.weights}, processor time, medians of {options.rounds}")
    with tempfile.TemporaryDirectory(prefix="tui-llm-figures-") as home:
        os.environ["TUI_LLM_HOME"] = home
        for name, measured in growing(options.weights, options.rounds, options.quick).items():
            for point in measured() if options.only is None or name in options.only else ():
                points.append(point)
                if not options.json:
                    print(point.line(), flush=True)
    points.sort(key=lambda point: point.step)  # stable: sizes stay in order
    if options.json:
        json.dump([asdict(point) for point in points], sys.stdout)
        return
    faster = grows_faster(points)
    print("met: nothing grows faster than its bytes or operations" if not faster else f"NOT MET: {'; '.join(faster)}")


if __name__ == "__main__":
    main()
