"""Measure what the recipe of today buys: the preset `modern` against GPT-2's recipe with AdamW, and with Muon.

    python scripts/figures_recipe.py CORPUS WORK [--steps 1200] [--seeds 1 2 3] [--set width=64 …] [--report]

CORPUS contains the folders `simple`, `children` and `fiction` of text files (or is any text); WORK receives the runs. For each
seed: the preset `nano` (AdamW) and the same with Muon for STEPS steps, `modern` for a half of them and for 0.8 of them. Each has its
own schedule to its end, so the last losses are compared. After an interruption, run it again: finished runs are skipped, others
resume. Workers run at low priority. The time of a step is measured apart, in one process, in turn: other load on the machine
then hits all sides alike. `--report` only prints what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# A name, the preset, further settings, and the share of the steps.
SIDES = (
    ("adamw", "nano", {}, 1.0),
    ("muon", "nano", {"optimizer": "muon", "learning_rate": "1e-2", "schedule": "wsd", "decay_fraction": "0.4"}, 1.0),
    ("modern-half", "modern", {}, 0.5),
    ("modern-most", "modern", {}, 0.8),
)
# (what, the side that must reach the loss, of which side, the most tokens, the most time)
GOALS = (
    ("modern to the loss of GPT-2 with AdamW", "modern-half", "adamw", 0.5, 0.6),
    ("modern to the loss of GPT-2 with Muon", "modern-most", "muon", 0.8, None),
)


def tui_llm(work: Path, *words: str) -> None:
    print("+ tui-llm", *words, flush=True)
    environment = {**os.environ, "TUI_LLM_HOME": str(work / "home"), "TUI_LLM_NICE": "15"}
    subprocess.run([sys.executable, "-m", "tui_llm", *words], check=True, env=environment)


def train(work: Path, corpus: list[str], name: str, preset: str, given: dict[str, str]) -> None:
    """Trains a run, unless it is finished; resumes one that is there."""
    from tui_llm.training.run.run import Run

    run = Run(work / "home" / "runs" / name)
    if run.exists() and run.status().state == "finished":
        return
    options = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", value)]
    if run.exists():
        tui_llm(work, "train", "--resume", "--run", name)
    else:
        tui_llm(work, "train", *corpus, "--run", name, "--preset", preset, *options)


def step_ratio(given: dict[str, str], rounds: int) -> dict[str, float]:
    """The seconds of a step of each side ÷ those of `adamw`: the median over rounds in which all sides take a step in turn."""
    import numpy as np
    import torch

    from tui_llm.llm.data.corpus import Corpus
    from tui_llm.llm.model.model import GPT
    from tui_llm.training.plan import cost
    from tui_llm.training.plan.fields import resolve_settings
    from tui_llm.training.run.settings import preset
    from tui_llm.training.worker.loop import Trainer

    torch.set_flush_denormal(True)
    trainers = {}
    for name, base, own, _ in SIDES[:3]:
        settings, shape, _found = resolve_settings({**given, **own, "eval_batches": "1"}, preset(base))
        settings = dataclasses.replace(settings, steps=10**9)
        torch.manual_seed(1)
        ids = np.random.default_rng(0).integers(0, shape.vocabulary, 100_000).astype(np.uint32)
        model = GPT(cost.shape(settings, shape.vocabulary))
        trainers[name] = Trainer(model, Corpus(ids, ids, 1.0, 0.0, ""), settings, torch.device("cpu"))
    taken: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(1, rounds + 3):
        for name, trainer in trainers.items():
            began = time.perf_counter()
            trainer._update(number, 1e-4)
            taken[name].append(time.perf_counter() - began)
    base = taken["adamw"][2:]
    return {
        name: statistics.median(mine / other for mine, other in zip(times[2:], base, strict=True))
        for name, times in taken.items()
    }


def last_loss(work: Path, name: str) -> tuple[float, int] | None:
    """The last validation loss of a finished run, and its tokens."""
    from tui_llm.training.run.compare import compare
    from tui_llm.training.run.run import Run

    run = Run(work / "home" / "runs" / name)
    if not run.exists() or run.status().state != "finished":
        return None
    (found,) = compare([run]).outcomes
    assert found.last_val_loss is not None and found.tokens is not None
    return found.last_val_loss, found.tokens


def report(work: Path, seeds: list[int], ratios: dict[str, float]) -> dict[str, Any]:
    found = {f"{name}-{seed}": last_loss(work, f"recipe-{name}-{seed}") for seed in seeds for name, *_ in SIDES}
    print(f"\n{platform.machine()}, {os.cpu_count()} CPUs; last validation loss, nats per token")
    print(f"{'seed':>6} " + "".join(f"{name:>16}" for name, *_ in SIDES))
    for seed in seeds:
        row = [found[f"{name}-{seed}"] for name, *_ in SIDES]
        print(f"{seed:>6} " + "".join(f"{one[0]:16.4f}" if one else f"{'–':>16}" for one in row))
    goals = []
    for what, side, other, tokens, seconds in GOALS:
        both = [(found[f"{side}-{seed}"], found[f"{other}-{seed}"]) for seed in seeds]
        known = [(mine, theirs) for mine, theirs in both if mine and theirs]
        if len(known) < len(seeds):
            print(f"{what}: {len(known)} of {len(seeds)} seeds are done")
            continue
        share = max(mine[1] / theirs[1] for mine, theirs in known)
        reached = sum(mine[0] <= theirs[0] for mine, theirs in known)
        line = f"{what}: reached by {reached} of {len(seeds)} seeds with {share:.2f} of the tokens (goal ≤ {tokens})"
        met = reached == len(seeds) and share <= tokens + 0.005
        took = share * ratios["modern-half"] / ratios[other] if ratios else None
        if seconds is not None and took is not None:
            line += f" and {took:.2f} of the time (goal ≤ {seconds})"
            met = met and took <= seconds
        print(f"{line}: {'met' if met else 'NOT MET'}")
        goals.append({"what": what, "seeds": len(seeds), "reached": reached, "tokens": share, "time": took, "met": met})
    return {"losses": {name: one and one[0] for name, one in found.items()}, "step_ratios": ratios, "goals": goals}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another setting of all sides")
    parser.add_argument(
        "--adamw-rate", help="its learning rate (default: the preset's, 2e-3; small models bear more, see dev/LOG.md)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="of the steps that are timed")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["TUI_LLM_HOME"] = str(work / "home")
    folders = [str(options.corpus / name) for name in ("simple", "children", "fiction")]
    corpus = folders if Path(folders[0]).is_dir() else [str(options.corpus)]
    given = dict(part.split("=", 1) for part in options.set)
    if not options.report:
        for seed in options.seeds:
            for name, preset, own, share in SIDES:
                steps = round(share * options.steps)
                settings = {
                    **given,
                    **own,
                    "seed": str(seed),
                    "steps": str(steps),
                    "eval_every": str(max(1, steps // 20)),
                }
                if name == "adamw" and options.adamw_rate:
                    settings["learning_rate"] = options.adamw_rate
                if "learning_rate" in settings:  # else the preset's warm-up is shortened for the steps
                    settings["warmup_steps"] = str(min(150, max(1, steps // 10)))
                train(work, corpus, f"recipe-{name}-{seed}", preset, settings)
    ratios = step_ratio(given, options.rounds)
    print("seconds of a step ÷ AdamW's:", {name: round(one, 3) for name, one in ratios.items()})
    found = report(work, options.seeds, ratios)
    (work / "recipe.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
