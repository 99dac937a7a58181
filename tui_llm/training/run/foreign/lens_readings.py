"""The logit lens of the pins at each step of a foreign folder, in lens.jsonl. Does not import torch.

    {"step": 100, "lenses": [{"prompt": "The", "target": " cat", "token": [4758, "20636174"], "rows": [[464, "546865", 0.9, 0.01, 12], …]}]}

A row is what the final norm and the output head make of the residual stream: the first of the embedding, then one after each
block. It has the likeliest token with its probability, and the target's probability and rank. The target is the first token of
the pin's; without one, the token that the whole model finds likeliest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tui_llm.facts.pin import Pin
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.training.run.metrics import LARGEST_STEP

FILE = "lens.jsonl"
MOST_ROWS = 1 << 12


@dataclass(frozen=True, slots=True)
class LensStepRow:
    """The prediction after a layer: None is the embedding. `probability` and `rank` are the target's."""

    layer: int | None
    bytes: bytes
    likeliest: float
    probability: float
    rank: int

    @property
    def text(self) -> str:
        """The likeliest token's text, not sanitized for a terminal."""
        return token_text(self.bytes)


@dataclass(frozen=True, slots=True)
class LensReading:
    """The lens of one pin at one step: `rows` of the embedding, then of each block; `target` is the token's bytes."""

    pin: Pin
    target: bytes
    rows: tuple[LensStepRow, ...]


@dataclass(frozen=True, slots=True)
class LensEvaluation:
    """The lenses of the pins at one step."""

    step: int
    lenses: tuple[LensReading, ...]

    def of(self, pin: Pin) -> LensReading | None:
        """The lens of `pin`; None if it was not read."""
        return next((one for one in self.lenses if one.pin == pin), None)


def line(evaluation: LensEvaluation) -> dict[str, Any]:
    """The JSON object of an evaluation; `parse` reads it."""
    return {
        "step": evaluation.step,
        "lenses": [
            {"prompt": one.pin.prompt, **({"target": one.pin.target} if one.pin.target else {}), "token": one.target.hex(),
             "rows": [[row.bytes.hex(), row.likeliest, row.probability, row.rank] for row in one.rows]}
            for one in evaluation.lenses
        ],
    }  # fmt: skip


def parse(value: Any) -> LensEvaluation:
    """Raises ValueError, KeyError, TypeError or AttributeError if the object is damaged."""
    step = int(value["step"])
    if not 0 <= step < LARGEST_STEP:
        raise ValueError("no such step")
    return LensEvaluation(step, tuple(map(_lens, value["lenses"])))


def _lens(value: Any) -> LensReading:
    target = value.get("target")
    rows = tuple(
        LensStepRow(at - 1 if at else None, bytes.fromhex(data), _share(p), _share(own), int(rank))
        for at, (data, p, own, rank) in enumerate(value["rows"][:MOST_ROWS])
    )
    return LensReading(Pin(str(value["prompt"]), str(target) if target else None), bytes.fromhex(value["token"]), rows)


def _share(value: Any) -> float:
    found = float(value)
    if not (math.isfinite(found) and 0 <= found <= 1 + 1e-6):
        raise ValueError("no probability")
    return found
