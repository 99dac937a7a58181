"""Trains models of several shapes for several numbers of tokens, and fits the loss law that `--minutes` picks a model by.

    python scripts/loss_law.py FOLDER                 train what is not in FOLDER/points.jsonl yet
    python scripts/loss_law.py FOLDER --fit           fit the law to the points

The law is that of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3), in bits per byte instead of nats per token, so that
vocabularies can be compared: L(N, D) = E + A · N^−α + B · D^−β, with N the parameters without the position embedding and D the
bytes of text that were trained on. α and β are shared; A, B and E are each corpus's and vocabulary's own.

Each shape is trained once at a constant learning rate; from several of its steps the rate is decayed to zero, which gives
the end of a run of that length (Hägele et al. 2024, arXiv 2405.18392).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ALPHA = 0.34  # Hoffmann et al.'s: these runs are too short to tell, as `relative_errors_by_alpha` shows
DECAY = 0.4  # share of the steps
CORPORA = ("tinyshakespeare", "python-reference")
ROWS, BLOCK, WARM_UP = 8, 128, 20


class Wanted(NamedTuple):
    """A model to train: `tokens` is the longest of its `ends` runs, each twice as long as the one before; `texts` of `CORPORA`."""

    tokenizer: str
    layers: int
    heads: int
    width: int
    tokens: int
    rate: float
    ends: int = 4
    texts: int = len(CORPORA)


GRID = (
    Wanted("nano", 2, 2, 64, 1_048_576, 1e-2),
    Wanted("nano", 2, 4, 128, 1_048_576, 7e-3),
    Wanted("byte", 2, 4, 128, 2_097_152, 7e-3, texts=1),
    Wanted("nano", 4, 4, 256, 131_072, 5e-3, 3),
)
RATES = tuple(
    Wanted("nano", 2, heads, width, 262_144, rate, 1)
    for heads, width, rates in ((2, 64, (5e-3, 1e-2, 2e-2)), (4, 128, (5e-3, 1e-2, 2e-2)))
    for rate in rates
)


def points(corpus: str, one: Wanted) -> Iterator[dict[str, Any]]:
    """Trains one shape on one corpus; yields a point for each end."""
    import torch

    from tui_llm.llm.data.corpus import load
    from tui_llm.llm.hub import hub
    from tui_llm.llm.model.model import GPT
    from tui_llm.training.plan import cost
    from tui_llm.training.run.settings import from_fields
    from tui_llm.training.worker import checkpoints
    from tui_llm.training.worker.loop import Trainer

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    tokenizer = hub.training_tokenizer(one.tokenizer)
    text = load([corpus], tokenizer, 0.05, block_size=BLOCK)
    settings = from_fields(
        {"layers": one.layers, "heads": one.heads, "width": one.width, "block_size": BLOCK, "batch_size": ROWS,
         "optimizer": "muon", "learning_rate": one.rate, "tokenizer": one.tokenizer, "steps": 10**6,
         "eval_batches": 24}
    )  # fmt: skip
    torch.manual_seed(1)
    model = GPT(cost.shape(settings, tokenizer.size))
    trainer = Trainer(model, text, settings, torch.device("cpu"))
    step, last = 0, one.tokens // trainer.step_tokens
    for end in sorted(last >> k for k in range(one.ends)):
        begin = end - round(DECAY * end)
        while step < begin:
            step += 1
            trainer._update(step, one.rate * min(1.0, step / WARM_UP))
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        state = {name: value.clone() for name, value in checkpoints.state_of(trainer).items()}
        for number in range(begin + 1, end + 1):
            trainer._update(number, one.rate * (end - number + 1) / (end - begin + 1))
        loss = trainer.validate()
        model.load_state_dict(weights)
        checkpoints.restore(trainer, state)
        parameters = model.config.parameters() - model.config.position_weights
        tokens = end * trainer.step_tokens
        yield {
            "corpus": corpus, **one._asdict(), "parameters": parameters, "tokens": tokens,
            "bytes": tokens * text.bytes_per_token, "epochs": tokens / len(text.train), "loss": loss,
            "bits_per_byte": loss / math.log(2) / text.bytes_per_token,
        }  # fmt: skip


def train(path: Path, jobs: list[tuple[str, Wanted]]) -> None:
    known = {(p["corpus"], p["tokenizer"], p["layers"], p["width"], p["rate"]) for p in read(path)}
    for corpus, one in jobs:
        if (corpus, one.tokenizer, one.layers, one.width, one.rate) in known:
            continue
        began = time.monotonic()
        found = list(points(corpus, one))
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(point) + "\n" for point in found)
        ends = " ".join(f"{p['tokens'] / 1e6:.2f}M {p['bits_per_byte']:.3f}" for p in found)
        print(f"{corpus} {one}: {ends} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


# ── the fit ──


def fit(found: list[dict[str, Any]]) -> dict[str, Any]:
    """β with the least squares of relative errors, and each text's E, A and B, which are not negative; α is `ALPHA`.

    The law has the mean of the texts. γ is from runs on bytes, which are given the E and A of nano's runs on the same text.
    """
    texts: dict[str, list[dict[str, Any]]] = {}
    for point in found:
        if point["tokenizer"] == "nano":
            texts.setdefault(point["corpus"], []).append(point)
    grid = [0.05 * i for i in range(2, 17)]
    best = {
        alpha: min((sum(_group(points, alpha, b)[0] for points in texts.values()), b) for b in grid)
        for alpha in (0.15, ALPHA, 0.5, 0.8)
    }
    alpha, (error, beta) = ALPHA, best[ALPHA]
    each = {text: _group(points, alpha, beta)[1] for text, points in texts.items()}
    e, a, b = (sum(column) / len(each) for column in zip(*each.values(), strict=True))
    gammas = []
    for point in found:
        if point["tokenizer"] == "byte":
            (own_e, own_a, own_b), terms = each[point["corpus"]], _terms(alpha, beta, point)
            ratio = (point["bits_per_byte"] - own_e - own_a * terms[1]) / terms[2] / own_b
            per_token = texts[point["corpus"]][0]["bytes"] / texts[point["corpus"]][0]["tokens"]
            gammas.append(math.log(ratio) / math.log(per_token))
    gamma = sum(gammas) / len(gammas) if gammas else 0.0
    per_token = sum(points[0]["bytes"] / points[0]["tokens"] for points in texts.values()) / len(texts)
    errors = [
        math.log(point["bits_per_byte"] / _predict([e, a, b], alpha, beta, point))
        for points in texts.values()
        for point in points
    ]
    count = len(errors)
    return {
        "law": {"e": e, "a": a, "alpha": alpha, "b": b * per_token**gamma, "beta": beta, "gamma": gamma},
        "gammas": gammas, "bytes_per_token": per_token,
        "spread_over_texts": math.sqrt(sum(one * one for one in errors) / count),
        "relative_errors_by_alpha": {a: math.sqrt(one / count) for a, (one, _) in best.items()},
        "relative_error_within_texts": math.sqrt(error / count), "points": count, "texts": each,
    }  # fmt: skip


def _terms(alpha: float, beta: float, point: dict[str, Any]) -> list[float]:
    from tui_llm.training.plan.loss_law import effective

    text = point["bytes"] / point["epochs"]
    return [1.0, point["parameters"] ** -alpha, effective(point["bytes"], text) ** -beta]


def _predict(values: list[float], alpha: float, beta: float, point: dict[str, Any]) -> float:
    return sum(value * term for value, term in zip(values, _terms(alpha, beta, point), strict=True))


def _group(found: list[dict[str, Any]], alpha: float, beta: float) -> tuple[float, list[float]]:
    """The least sum of squared relative errors of a text's points, and its E, A, B ≥ 0: the best of all sets of positive ones."""
    import numpy as np

    rows = np.array([_terms(alpha, beta, point) for point in found]) / np.array([[p["bits_per_byte"]] for p in found])
    best = math.inf, [0.0, 0.0, 0.0]
    for mask in range(1, 8):
        used = [i for i in range(3) if mask >> i & 1]
        solved = np.linalg.lstsq(rows[:, used], np.ones(len(found)), rcond=None)[0]
        error = float(((rows[:, used] @ solved - 1) ** 2).sum())
        if (solved >= 0).all() and error < best[0]:
            values = [0.0, 0.0, 0.0]
            for i, value in zip(used, solved, strict=True):
                values[i] = float(value)
            best = error, values
    return best


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fit", action="store_true", help="fit the law to the points of FOLDER")
    parser.add_argument("--rates", action="store_true", help="train one width with several learning rates instead")
    options = parser.parse_args()
    os.environ["TUI_LLM_HOME"] = str(options.folder.resolve())
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "points.jsonl"
    if options.rates:
        train(options.folder / "rates.jsonl", [("tinyshakespeare", one) for one in RATES])
    elif options.fit:
        json.dump(fit(read(path)), sys.stdout, indent=1)
    else:
        train(path, [(corpus, one) for one in GRID for corpus in CORPORA[: one.texts]])


if __name__ == "__main__":
    main()
