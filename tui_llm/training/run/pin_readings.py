"""Pin readings: the model's predictions for the pins at each evaluation, in probes.jsonl. Does not import torch."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.training.run.jsonl import Tail
from tui_llm.training.run.metrics import LARGEST_STEP, float32
from tui_llm.training.run.run import Run


@dataclass(frozen=True, slots=True)
class PinCandidate:
    """One of the most probable next tokens.

    `probability` is the softmax of the logits, without temperature or penalties.
    """

    id: int
    bytes: bytes
    probability: float

    @property
    def text(self) -> str:
        """The token's text, not sanitized for a terminal."""
        return token_text(self.bytes)


@dataclass(frozen=True, slots=True)
class PinTargetToken:
    """One target token, teacher-forced: `loss` = −ln probability in nats; `rank` is 1 + the count of greater logits."""

    id: int
    bytes: bytes
    loss: float
    probability: float
    rank: int

    @property
    def text(self) -> str:
        """The token's text, not sanitized for a terminal."""
        return token_text(self.bytes)


@dataclass(frozen=True, slots=True)
class PinReading:
    """The predictions for one pin at one step.

    `candidates` are the most probable next tokens in descending order, `entropy` is that of the whole next-token
    distribution in nats, and `tokens` are the target's tokens. `problem` is one line that says what could not be read,
    or only in part.
    """

    pin: Pin
    entropy: float | None = None
    candidates: tuple[PinCandidate, ...] = ()
    tokens: tuple[PinTargetToken, ...] = ()
    problem: str = ""

    @property
    def loss(self) -> float | None:
        """Loss of the whole target in nats: the sum over its tokens. None if the target was not read."""
        return math.fsum(token.loss for token in self.tokens) if self.tokens else None

    @property
    def probability(self) -> float | None:
        """Probability of the whole target given the prompt: e^−loss, the product of its tokens' probabilities."""
        return None if self.loss is None else math.exp(-self.loss)

    @property
    def least(self) -> float:
        """Upper bound of the probability of a token that is not among `candidates`."""
        return min(self.candidates[-1].probability, self.missing) if self.candidates else 1.0

    @property
    def missing(self) -> float:
        """Total probability of all tokens that are not among `candidates`."""
        return max(0.0, 1.0 - math.fsum(candidate.probability for candidate in self.candidates))

    def of(self, id: int) -> float | None:
        """Returns the probability of the next token `id`, or None if it was not recorded."""
        known = [candidate.probability for candidate in self.candidates if candidate.id == id]
        return known[0] if known else self.tokens[0].probability if self.tokens and self.tokens[0].id == id else None


@dataclass(frozen=True, slots=True)
class PinEvaluation:
    """The predictions for all pins after `step` steps; step 0 is the untrained model."""

    step: int
    readings: tuple[PinReading, ...]

    def of(self, pin: Pin) -> PinReading | None:
        """Returns the predictions for `pin`, or None if it was not read."""
        return next((reading for reading in self.readings if reading.pin == pin), None)


@dataclass(frozen=True, slots=True)
class ProbabilityChange:
    """A next token's probability at two steps.

    `before` or `after` is None if the token was not recorded at that step. `before_most` and `after_most` are upper
    bounds; where the probability is known, they are equal to it.
    """

    id: int
    bytes: bytes
    before: float | None
    after: float | None
    before_most: float
    after_most: float

    @property
    def text(self) -> str:
        """The token's text, not sanitized for a terminal."""
        return token_text(self.bytes)

    @property
    def exact(self) -> bool:
        """Whether both probabilities are known."""
        return self.before is not None and self.after is not None

    @property
    def change(self) -> float:
        """after − before. If one is unknown, the smallest change in magnitude that its upper bound allows.

        It is 0 if the sign of the change is unknown.
        """
        if self.before is None and self.after is not None:
            return max(0.0, self.after - self.before_most)
        if self.after is None and self.before is not None:
            return min(0.0, self.after_most - self.before)
        return (self.after or 0.0) - (self.before or 0.0)


def line(evaluation: PinEvaluation) -> dict[str, Any]:
    """Returns the JSON object of `evaluation`; the inverse of `parse`."""
    return {"step": evaluation.step, "probes": [_value(reading) for reading in evaluation.readings]}


def _value(reading: PinReading) -> dict[str, Any]:
    value: dict[str, Any] = {"prompt": reading.pin.prompt}
    if reading.pin.target:
        value["target"] = reading.pin.target
    if reading.entropy is not None:
        value["entropy"] = reading.entropy
        value["top"] = [
            [candidate.id, candidate.bytes.hex(), candidate.probability] for candidate in reading.candidates
        ]
    if reading.tokens:
        # JSON has no infinity, the loss of a probability that float32 rounds to 0: it is written as a string
        value["tokens"] = [
            [t.id, t.bytes.hex(), t.loss if math.isfinite(t.loss) else str(t.loss), t.probability, t.rank]
            for t in reading.tokens
        ]
    return value | ({"problem": reading.problem} if reading.problem else {})


def parse(line: bytes) -> PinEvaluation | None:
    """Parses a line of probes.jsonl; returns None if it is damaged."""
    try:
        value = json.loads(line)
        step = int(value["step"])
        return PinEvaluation(step, tuple(map(_reading, value["probes"]))) if 0 <= step < LARGEST_STEP else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _reading(value: Any) -> PinReading:
    target = value.get("target")
    return PinReading(
        Pin(str(value["prompt"]), str(target) if target else None),
        _from_0(value["entropy"], sys.float_info.max) if "entropy" in value else None,
        tuple(PinCandidate(_count(id), bytes.fromhex(data), _from_0(p, 1.0)) for id, data, p in value.get("top", ())),
        tuple(
            PinTargetToken(_count(id), bytes.fromhex(data), _from_0(loss, math.inf), _from_0(p, 1.0), _count(rank))
            for id, data, loss, p, rank in value.get("tokens", ())
        ),
        str(value.get("problem", "")),
    )


def _from_0(value: Any, most: float) -> float:
    """Returns `value` as a float. Raises ValueError unless 0 ≤ value ≤ `most` (with a tolerance of 1e-6)."""
    found = float32(value)
    if not 0 <= found <= most + 1e-6:
        raise ValueError(f"{found} is out of range")
    return found


def _count(value: Any) -> int:
    return int(_from_0(value, LARGEST_STEP))


class PinReadingsTail(Tail[PinEvaluation]):
    """Reads the lines of a run's probes.jsonl as it grows."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.pin_readings_path, parse)


def evaluations(run: Run) -> list[PinEvaluation]:
    """Returns every recorded evaluation, in the order of steps. Raises `UserError` if the file can't be read."""
    tail = PinReadingsTail(run)
    found = tail.new()
    if tail.problem:
        raise UserError(f"run {run.name}: {tail.problem}; move it away")
    return in_order(found)


def in_order(found: Iterable[PinEvaluation]) -> list[PinEvaluation]:
    """Returns one evaluation for each step, the newest, in the order of steps."""
    return [evaluation for _, evaluation in sorted({evaluation.step: evaluation for evaluation in found}.items())]


def pins_of(found: Iterable[PinEvaluation]) -> list[Pin]:
    """Returns every pin that occurs in the evaluations, in the order of first occurrence."""
    return list(dict.fromkeys(reading.pin for evaluation in found for reading in evaluation.readings))


def of_pin(found: Iterable[PinEvaluation], pin: Pin) -> list[tuple[int, PinReading]]:
    """Returns one pin's history as (step, reading)."""
    return [(evaluation.step, reading) for evaluation in found if (reading := evaluation.of(pin)) is not None]


def nearest(saved: Sequence[tuple[int, PinReading]], step: int) -> tuple[int, PinReading] | None:
    """Returns the entry at `step`, or the last one before it; None if all are later."""
    return next((evaluation for evaluation in reversed(saved) if evaluation[0] <= step), None)


def difference(before: PinReading, after: PinReading) -> list[ProbabilityChange]:
    """Returns the change of every token that was recorded at one of the two steps; the largest change first."""
    tokens = {candidate.id: candidate.bytes for reading in (after, before) for candidate in reading.candidates}
    tokens |= {token.id: token.bytes for token in (*after.tokens[:1], *before.tokens[:1])}
    changes = []
    for id, data in tokens.items():
        a, b = before.of(id), after.of(id)
        most = before.least if a is None else a, after.least if b is None else b
        changes.append(ProbabilityChange(id, data, a, b, *most))
    return sorted(changes, key=lambda change: (-abs(change.change), -max(change.before or 0, change.after or 0)))


@dataclass(frozen=True, slots=True)
class Line:
    """A probability over the steps: of the whole target (`bytes` is then None), or of one next token."""

    bytes: bytes | None
    points: tuple[tuple[int, float], ...]


def lines(saved: Sequence[tuple[int, PinReading]], most: int = 4) -> tuple[Line, ...]:
    """Returns the curves that a chart shows for a pin.

    With a target, that is the target's probability. Without one, it is the probability of each of the `most` most
    probable tokens of the last entry, at each step at which it was recorded.
    """
    target = tuple((step, p) for step, reading in saved if (p := reading.probability) is not None)
    if target:
        return (Line(None, target),)
    last = next((reading for _, reading in reversed(saved) if reading.candidates), None)
    if last is None:
        return ()
    return tuple(
        Line(
            candidate.bytes, tuple((step, p) for step, reading in saved if (p := reading.of(candidate.id)) is not None)
        )
        for candidate in last.candidates[:most]
    )
