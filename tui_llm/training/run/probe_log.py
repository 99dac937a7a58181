"""probes.jsonl: what a run's model made of the pinned prompts at each evaluation, and what that tells. No torch here."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.training.run.jsonl import Tail
from tui_llm.training.run.metrics import LARGEST_STEP
from tui_llm.training.run.pins import Pin
from tui_llm.training.run.run import Run


@dataclass(frozen=True, slots=True)
class Guess:
    """One of the likeliest next tokens: its raw probability, softmax of the logits alone."""

    id: int
    bytes: bytes
    probability: float

    @property
    def text(self) -> str:
        """Raw text: it passes the gate before any screen."""
        return token_text(self.bytes)


@dataclass(frozen=True, slots=True)
class ProbeToken:
    """One token of the target, teacher-forced: loss = −ln probability in nats; rank counts greater logits, from 1."""

    id: int
    bytes: bytes
    loss: float
    probability: float
    rank: int

    @property
    def text(self) -> str:
        return token_text(self.bytes)


@dataclass(frozen=True, slots=True)
class Probe:
    """A pin at one moment. `guesses` are the likeliest next tokens, likeliest first; `entropy` is that of the whole
    prediction, in nats; `tokens` are the target's. `problem` says in a line what could not be read, or not all of it."""

    pin: Pin
    entropy: float | None = None
    guesses: tuple[Guess, ...] = ()
    tokens: tuple[ProbeToken, ...] = ()
    problem: str = ""

    @property
    def loss(self) -> float | None:
        """Of the whole target, in nats: the sum over its tokens. None where it was not read."""
        return math.fsum(token.loss for token in self.tokens) if self.tokens else None

    @property
    def probability(self) -> float | None:
        """Of the whole target after the prompt: e^−loss, the product of its tokens' probabilities."""
        return None if self.loss is None else math.exp(-self.loss)

    @property
    def least(self) -> float:
        """What a token that is not among the guesses has at most."""
        return min(self.guesses[-1].probability, self.missing) if self.guesses else 1.0

    @property
    def missing(self) -> float:
        """The probability of all tokens that are not among the guesses, together."""
        return max(0.0, 1.0 - math.fsum(guess.probability for guess in self.guesses))

    def of(self, id: int) -> float | None:
        """The probability of a next token, where it was written down."""
        known = [guess.probability for guess in self.guesses if guess.id == id]
        return known[0] if known else self.tokens[0].probability if self.tokens and self.tokens[0].id == id else None


@dataclass(frozen=True, slots=True)
class Moment:
    """All pins after `step` steps; step 0 is the model before any training."""

    step: int
    probes: tuple[Probe, ...]

    def of(self, pin: Pin) -> Probe | None:
        return next((probe for probe in self.probes if probe.pin == pin), None)


@dataclass(frozen=True, slots=True)
class Change:
    """A next token's probability at two moments, None where it was not among the likeliest then. It was then at most
    what `before_most` or `after_most` says (where it is known, they are the probability itself)."""

    id: int
    bytes: bytes
    before: float | None
    after: float | None
    before_most: float
    after_most: float

    @property
    def text(self) -> str:
        return token_text(self.bytes)

    @property
    def exact(self) -> bool:
        return self.before is not None and self.after is not None

    @property
    def change(self) -> float:
        """after − before: exact, or else the least that it is in size, given what the unknown one can be at most; 0
        where not even the direction is sure."""
        if self.before is None and self.after is not None:
            return max(0.0, self.after - self.before_most)
        if self.after is None and self.before is not None:
            return min(0.0, self.after_most - self.before)
        return (self.after or 0.0) - (self.before or 0.0)


def line(moment: Moment) -> dict[str, Any]:
    """As JSON holds it; `parse` reads it back."""
    return {"step": moment.step, "probes": [_value(probe) for probe in moment.probes]}


def _value(probe: Probe) -> dict[str, Any]:
    value: dict[str, Any] = {"prompt": probe.pin.prompt}
    if probe.pin.target:
        value["target"] = probe.pin.target
    if probe.entropy is not None:
        value["entropy"] = probe.entropy
        value["top"] = [[guess.id, guess.bytes.hex(), guess.probability] for guess in probe.guesses]
    if probe.tokens:
        # JSON has no infinity: a probability that float32 rounds to 0 has this loss, written as text
        value["tokens"] = [
            [t.id, t.bytes.hex(), t.loss if math.isfinite(t.loss) else str(t.loss), t.probability, t.rank]
            for t in probe.tokens
        ]
    return value | ({"problem": probe.problem} if probe.problem else {})


def parse(line: bytes) -> Moment | None:
    """None where the line is damaged."""
    try:
        value = json.loads(line)
        step = int(value["step"])
        return Moment(step, tuple(map(_probe, value["probes"]))) if 0 <= step < LARGEST_STEP else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _probe(value: Any) -> Probe:
    target = value.get("target")
    return Probe(
        Pin(str(value["prompt"]), str(target) if target else None),
        _from_0(value["entropy"], sys.float_info.max) if "entropy" in value else None,
        tuple(Guess(_count(id), bytes.fromhex(data), _from_0(p, 1.0)) for id, data, p in value.get("top", ())),
        tuple(
            ProbeToken(_count(id), bytes.fromhex(data), _from_0(loss, math.inf), _from_0(p, 1.0), _count(rank))
            for id, data, loss, p, rank in value.get("tokens", ())
        ),
        str(value.get("problem", "")),
    )


def _from_0(value: Any, most: float) -> float:
    """Raises ValueError where it is less, more, or no number: a loss is never negative, a probability at most 1."""
    found = float(value)
    if not 0 <= found <= most + 1e-6:
        raise ValueError(f"{found} is out of range")
    return found


def _count(value: Any) -> int:
    return int(_from_0(value, LARGEST_STEP))


class ProbeTail(Tail[Moment]):
    """The lines of a run's probes.jsonl as it grows."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.probes_path, parse)


def moments(run: Run) -> list[Moment]:
    """Every saved moment, in the order of steps. Raises `UserError` where the file can't be read."""
    tail = ProbeTail(run)
    found = tail.new()
    if tail.problem:
        raise UserError(f"run {run.name}: {tail.problem}; move it away")
    return in_order(found)


def in_order(found: Iterable[Moment]) -> list[Moment]:
    """One moment for each step, the newest, in the order of steps."""
    return [moment for _, moment in sorted({moment.step: moment for moment in found}.items())]


def pins_of(found: Iterable[Moment]) -> list[Pin]:
    """Every pin that was ever read, in the order of first reading."""
    return list(dict.fromkeys(probe.pin for moment in found for probe in moment.probes))


def of_pin(found: Iterable[Moment], pin: Pin) -> list[tuple[int, Probe]]:
    """One pin's moments: (step, probe)."""
    return [(moment.step, probe) for moment in found if (probe := moment.of(pin)) is not None]


def nearest(saved: Sequence[tuple[int, Probe]], step: int) -> tuple[int, Probe] | None:
    """The moment at `step` or the last one before it; None where there is none that early."""
    return next((moment for moment in reversed(saved) if moment[0] <= step), None)


def difference(before: Probe, after: Probe) -> list[Change]:
    """Every token that was likely at one of two moments; the largest change first."""
    tokens = {guess.id: guess.bytes for probe in (after, before) for guess in probe.guesses}
    tokens |= {token.id: token.bytes for token in (*after.tokens[:1], *before.tokens[:1])}
    changes = []
    for id, data in tokens.items():
        a, b = before.of(id), after.of(id)
        most = before.least if a is None else a, after.least if b is None else b
        changes.append(Change(id, data, a, b, *most))
    return sorted(changes, key=lambda change: (-abs(change.change), -max(change.before or 0, change.after or 0)))


@dataclass(frozen=True, slots=True)
class Line:
    """A probability over the steps: of the whole target (`bytes` is then None), or of one next token."""

    bytes: bytes | None
    points: tuple[tuple[int, float], ...]


def lines(saved: Sequence[tuple[int, Probe]], most: int = 4) -> tuple[Line, ...]:
    """What a chart shows of a pin: its target's probability or, where it has none, those of the tokens that are likeliest
    at the last moment, at each moment at which they are known."""
    target = tuple((step, p) for step, probe in saved if (p := probe.probability) is not None)
    if target:
        return (Line(None, target),)
    last = next((probe for _, probe in reversed(saved) if probe.guesses), None)
    if last is None:
        return ()
    return tuple(
        Line(guess.bytes, tuple((step, p) for step, probe in saved if (p := probe.of(guess.id)) is not None))
        for guess in last.guesses[:most]
    )
