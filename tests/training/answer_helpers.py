"""A tiny model, pairs and prompts for runs that learn preferences or a reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.byte_models import save_byte_model
from tests.training.run_helpers import TINY
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import answers, launch
from tui_llm.training.plan.start import fit
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import TrainingSettings

SHAPE = GPTConfig(vocabulary=257, context=32, layers=1, heads=2, width=16)
WORDS = ("cat", "dog", "sun", "sea")


def model_folder(folder: Path, shape: GPTConfig = SHAPE) -> Path:
    """A byte-level model with random weights."""
    return save_byte_model(folder, shape, seed=5)


def write_pairs(path: Path, count: int = 24) -> Path:
    """Pairs of answers of different lengths."""
    rows = [
        {
            "prompt": f"The {WORDS[i % 4]} ",
            "chosen": f"is {'very ' * (i % 3)}good {i}",
            "rejected": f"is bad{'!' * (i % 5)}",
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_prompts(path: Path) -> Path:
    path.write_text("".join(f"The {word} \n" for word in WORDS))
    return path


def settings(model: Path, objective: str, **fields: Any) -> TrainingSettings:
    own = {"reward": "count:e", "samples": 4, "answer_tokens": 6} if objective == "reward" else {}
    base = {"steps": 12, "eval_every": 4, "checkpoint_every": 5, "learning_rate": 3e-3, "precision": "fp32"}
    return fit({"from_model": str(model), "objective": objective, **base, **own, **fields}, TINY, SHAPE)


def begin(
    name: str,
    model: Path,
    corpus: Path | None,
    objective: str,
    *,
    tokenized: bool = True,
    device: str = "cpu",
    **fields: Any,
) -> Run:
    """Creates a run as the command line does; if not `tokenized`, as the form does."""
    places, s = [] if corpus is None else [str(corpus)], settings(model, objective, **fields)
    rows = answers.rows(s, places, model) if tokenized else None
    return launch.create(name, places, s, preset="toy", device=device, model=model, rows=rows)
