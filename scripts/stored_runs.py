"""Trains small runs of many kinds and stores them, as data for the band of the end's loss and for the alarms.

    python scripts/stored_runs.py FOLDER                train 60 runs for the design, 30 held-out ones, healthy ones and faults
    python scripts/stored_runs.py FOLDER --report       what the band and the alarms say of them (--json: as JSON)

Each run takes seconds. FOLDER becomes the TUI_LLM_HOME of the runs: it holds `runs/` and the corpora. A run that is there is
not trained again. The corpora are made here or come with Python: its language reference, its standard library's source, a
grammar's stories, words drawn at random.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHAPES = ((1, 2, 32), (2, 2, 64), (2, 4, 48), (1, 4, 64))  # layers, heads, width
HEALTHY = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run to train: what it is for, and its settings where they differ from `toy`."""

    name: str
    corpus: str
    settings: dict[str, Any] = field(default_factory=dict)


def wanted() -> list[Wanted]:
    """`design-…`, `tried-…` and `held-…`: 30 runs each, drawn with three seeds; the band was set on the first two only; `healthy-…`: the toy preset with other seeds and corpora;
    `fault-…`: one for each alarm."""
    runs = [*_drawn("design", 20), *_drawn("tried", 21), *_drawn("held", 22)]
    corpora = ("stories", "python-reference", "library", "words", "reference-en")
    for i in range(HEALTHY):
        runs.append(Wanted(f"healthy-{i}", corpora[i % len(corpora)], {"seed": 100 + i, "layers": 1 + i % 2}))
    return runs + list(_faults())


def _drawn(kind: str, seed: int) -> Iterator[Wanted]:
    draw = random.Random(seed)
    for i in range(30):
        layers, heads, width = draw.choice(SHAPES)
        steps = draw.choice((200, 300, 400, 600, 900))
        peak = 10 ** draw.uniform(-3.0, -1.9)
        settings = {
            "layers": layers, "heads": heads, "width": width, "block_size": draw.choice((32, 64)),
            "batch_size": draw.choice((4, 8, 16)), "steps": steps, "learning_rate": round(peak, 5),
            "min_learning_rate": round(peak * draw.choice((0.0, 0.1, 0.3)), 6), "warmup_steps": draw.choice((10, 20, 40)),
            "schedule": draw.choice(("cosine", "cosine", "wsd")), "optimizer": draw.choice(("adamw", "adamw", "adamw", "muon")),
            "seed": draw.randrange(1000), "eval_every": max(10, steps // draw.choice((8, 16))),
        }  # fmt: skip
        if settings["optimizer"] == "muon":
            settings["learning_rate"], settings["min_learning_rate"] = 5e-3, 5e-4
        yield Wanted(
            f"{kind}-{i:02}", draw.choice(("stories", "python-reference", "library", "words", "reference-en")), settings
        )


def _faults() -> Iterator[Wanted]:
    yield Wanted("fault-noise", "noisy", {"seed": 7, "batch_size": 8})
    yield Wanted("fault-rate", "python-reference", {"seed": 7, "learning_rate": 9e-2, "min_learning_rate": 9e-3})
    yield Wanted("fault-repeated", "short", {"seed": 7})
    yield Wanted("fault-copies", "copies", {"seed": 7})
    yield Wanted("fault-slow", "python-reference", {"seed": 7, "learning_rate": 1e-7, "min_learning_rate": 1e-8})


# ── the texts ──


def text_of(name: str, folder: Path) -> str:
    """The corpus by its name: one of tui-llm's names, or a file that is made in `folder`."""
    if name in ("stories", "python-reference"):
        return name
    path = folder / f"{name}.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_TEXTS[name]())
    return str(path)


def _library() -> bytes:
    """The source of Python's standard library: half a megabyte of it."""
    root = Path(sysconfig.get_path("stdlib"))
    return b"\n".join(file.read_bytes() for file in sorted(root.glob("[a-m]*.py")))[:500_000]


def _words() -> bytes:
    draw = random.Random(5)
    nouns = [
        b"".join(draw.choices([bytes([c]) for c in b"abcdefghiklmnoprstuw"], k=draw.randint(2, 9))) for _ in range(400)
    ]
    weights = [1 / (1 + i) for i in range(len(nouns))]
    return b" ".join(draw.choices(nouns, weights, k=60_000))


def _docs() -> bytes:
    """This project's own pages: English with Markdown."""
    root = Path(__file__).resolve().parents[1]
    return b"\n".join(file.read_bytes() for file in sorted((root / "docs").glob("*.md")))


def _noisy() -> bytes:
    """The docs with a file of noise in the middle: 1 % of all bytes, letters of many scripts at random."""
    text, draw = _docs(), random.Random(9)
    letters = [chr(code) for code in range(0x400, 0x1400) if chr(code).isalpha()]
    noise = "".join(draw.choices(letters, k=len(text) // 250)).encode()
    middle = text.find(b"\n", len(text) // 2) + 1
    return text[:middle] + noise + b"\n" + text[middle:]


def _short() -> bytes:
    """So little text that a run reads it some hundred times."""
    return _docs()[:3_000]


def _copies() -> bytes:
    """A short text a hundred times, so that the held-out part is a copy of what is trained on."""
    return _docs()[:1_500] * 100


_TEXTS = {
    "library": _library,
    "words": _words,
    "reference-en": _docs,
    "noisy": _noisy,
    "short": _short,
    "copies": _copies,
}


# ── training ──


def train(folder: Path, only: str) -> None:
    from tui_llm.training.plan import launch
    from tui_llm.training.run.run import Run
    from tui_llm.training.run.settings import PRESETS, from_fields

    context = multiprocessing.get_context("forkserver")  # torch is imported once
    context.set_forkserver_preload(["tui_llm.training.worker.process"])
    for one in wanted():
        if not one.name.startswith(only) or Run(folder / "runs" / one.name).exists():
            continue
        fields = {"sample_tokens": 0, "eval_every": 25, "precision": "fp32", **one.settings}
        settings = from_fields(
            {**fields, "checkpoint_every": fields.get("steps", PRESETS["toy"].steps)}, PRESETS["toy"]
        )
        run = launch.create(one.name, [text_of(one.corpus, folder / "texts")], settings, preset="toy", device="cpu")
        process = context.Process(target=_work, args=(str(run.path), str(folder)))
        process.start()
        process.join()
        print(one.name, run.status().state, run.status().summary, flush=True)


def _work(path: str, home: str) -> None:
    os.environ["TUI_LLM_HOME"] = home
    log = os.open(f"{path}/worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from tui_llm.training.worker import process

    os._exit(process.main([path]))


# ── what the band and the alarms say ──

SHARES = (0.25, 0.5, 0.75)


def report(only: str) -> dict[str, Any]:
    """For each kind of run: how many ends the band holds at 25, 50 and 75 % of the steps, alone and with earlier runs of the
    same shape (those of the design; for these, the others), and how wide it is; and the alarms of each run."""
    from tui_llm.training.run import earlier_runs, health
    from tui_llm.training.run.alarm_kinds import OUTLIER_ROW
    from tui_llm.training.run.alarms import AlarmReader
    from tui_llm.training.run.loss_band import Earlier
    from tui_llm.training.run.metrics import MetricsTail
    from tui_llm.training.run.run import runs

    kinds: dict[str, list[Earlier]] = {}
    alarms: dict[str, list[str]] = {}
    for run in runs():
        if not run.name.startswith(only or ""):
            continue
        config = run.config()
        reader = AlarmReader(config.settings, run.facts())
        reader.add(MetricsTail(run.metrics_path).new())
        rows = [one for one in health.recorded(run) if one.kind == OUTLIER_ROW]  # the worker's
        alarms[run.name] = [f"{one.kind} at step {one.step}: {one.evidence}" for one in (*reader.alarms, *rows)]
        if (one := earlier_runs.read(run, config.settings)) is not None:
            kinds.setdefault(run.name.partition("-")[0], []).append(one)
    known = [*kinds.get("design", []), *kinds.get("tried", [])]
    bands = {
        kind: _coverage(kind, kinds[kind], known) for kind in ("design", "tried", "held", "healthy") if kind in kinds
    }
    return {"bands": bands, "alarms": alarms}


def _coverage(kind: str, ended: list[Any], known: list[Any]) -> list[dict[str, Any]]:
    from tui_llm.training.run.earlier_runs import MOST, same_shape
    from tui_llm.training.run.loss_band import band, error_of

    rows = []
    for share in SHARES:
        for with_earlier in (False, True):
            held, widths = 0, []  # runs that are too short at that share have no band yet
            for one in ended:
                others = [
                    other for other in known if other.name != one.name and same_shape(other.settings, one.settings)
                ]
                curve = [point for point in one.curve if point[0] <= share * one.settings.steps]
                errors = [error_of(other, share) for other in others[:MOST]] if with_earlier else []
                found = band(curve, one.settings, one.changes, [error for error in errors if error is not None])
                if found.missing:
                    continue
                held += found.low <= one.end <= found.high
                widths.append((found.high - found.low) / one.end)
            rows.append({"share_of_steps": share, "earlier_runs": with_earlier, "runs": len(widths), "held": held,
                         "width_median": sorted(widths)[len(widths) // 2]})  # fmt: skip
            words = "with earlier runs" if with_earlier else "alone            "
            print(f"{kind:8} at {100 * share:.0f} % of the steps, {words}: the band holds {held} of {len(widths)} ends;"
                  f" its median width is {100 * rows[-1]['width_median']:.1f} % of the loss", file=sys.stderr)  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--report", action="store_true", help="report on the stored runs instead")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--only", default="", metavar="PREFIX", help="only runs whose names begin so, such as held")
    options = parser.parse_args()
    folder = options.folder.resolve()
    os.environ["TUI_LLM_HOME"] = str(folder)
    if not options.report:
        train(folder, options.only)
        return
    found = report(options.only)
    for name, lines in found["alarms"].items():
        if lines or name.startswith(("healthy", "fault")):
            print(f"{name:12} {len(lines)} alarms", *lines, sep="\n    ", file=sys.stderr)
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
