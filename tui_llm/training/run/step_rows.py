"""A step that was recomputed (`tui-llm replay`): its rows, what each contributed, what the step changed. No torch.

The process that recomputes it (`training/worker/replay.py`) writes these records as lines of JSON; `parse` reads one.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.facts.token_place import TokenPlace
from tui_llm.facts.tokens import Token
from tui_llm.llm.tokens.token_bytes import token_text


@dataclass(frozen=True, slots=True)
class RowPart:
    """The tokens of a row from number `first` on are those of a file from `place` on."""

    first: int
    place: TokenPlace


@dataclass(frozen=True)  # without slots: sums are cached
class StepRow:
    """Row `number` (from 0) of a step: T + 1 tokens, and the loss of each but the first, in nats.

    The losses are those of the weights before the step, without dropout; NaN where the model's output was not finite.
    `parts` are in the order of the tokens, one for each file that the row takes tokens from; empty if unknown.
    """

    number: int
    tokens: tuple[Token, ...]
    losses: tuple[float, ...]
    parts: tuple[RowPart, ...] = ()

    @functools.cached_property
    def total(self) -> float:
        """The sum of the losses."""
        return math.fsum(self.losses)

    @property
    def loss(self) -> float:
        """The mean of the losses."""
        return self.total / len(self.losses) if self.losses else math.nan

    @property
    def place(self) -> TokenPlace | None:
        """Where the row's first token begins."""
        return self.parts[0].place if self.parts else None


@dataclass(frozen=True, slots=True)
class RowShare:
    """A row's part in the gradient: the norm of its own gradient, and its `share` of the batch's norm.

    The shares of all rows sum to that norm; one is negative if the row pulls against the batch. `tokens` are the shares of
    the row's targets, which sum to `share`.
    """

    row: int
    norm: float
    share: float
    tokens: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TokenRank:
    """A target among those with the largest loss, or the largest share of the gradient's norm: target `position` (from 0) of
    a row, with its place in the corpus (None: unknown)."""

    row: int
    position: int
    place: TokenPlace | None


@dataclass(frozen=True, slots=True)
class FileShare:
    """A file's part in a step: how many rows take tokens from it, and its targets' shares of the summed loss and of the
    gradient's norm, 0 to 1 (None: not known yet)."""

    file: str
    rows: int
    loss: float
    norm: float | None


@dataclass(frozen=True, slots=True)
class StepPinChange:
    """What the step changed in a pinned prompt: the probability and the loss (nats) before and after.

    They are the target's; of a pin without a target, `token` is its most probable next token before the step, and the loss is
    its −ln p. None: not read; `problem` says why.
    """

    pin: Pin
    token: Token | None
    before: float | None
    after: float | None
    loss_before: float | None
    loss_after: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Logged:
    """The loss and the gradient norm that metrics.jsonl has for a step."""

    loss: float
    grad_norm: float


@dataclass(frozen=True)  # without slots: sums are cached
class ReplayedStep:
    """Step `step`, recomputed. Losses are in nats.

    `begun` is the number of updates of the checkpoint that it was recomputed from; 0: the run's beginning. `loss` and
    `grad_norm` are to be compared with `logged`, which is None if the log lacks the step. `why` names what can make them
    differ. `unplaced` says why the rows have no places; `dropout` that the step had dropout, which losses of tokens and
    shares are without.
    """

    step: int
    begun: int
    loss: float
    grad_norm: float
    lr: float
    logged: Logged | None
    rows: tuple[StepRow, ...]
    pins: tuple[StepPinChange, ...] = ()
    top: tuple[TokenRank, ...] = ()
    why: str = ""
    unplaced: str = ""
    dropout: bool = False

    @property
    def matches(self) -> bool:
        """Whether loss and gradient norm are bit for bit those of the log."""
        return self.logged is not None and (self.loss, self.grad_norm) == (self.logged.loss, self.logged.grad_norm)

    @functools.cached_property
    def total(self) -> float:
        """The sum of all targets' losses."""
        return math.fsum(row.total for row in self.rows)

    def loss_share(self, row: StepRow) -> float:
        """The row's share of the loss, 0 to 1."""
        return row.total / self.total if self.total > 0 else math.nan

    @property
    def match_line(self) -> str:
        """`matches the log: yes`, or no with the differences."""
        if self.logged is None:
            return "matches the log: unknown, it has no such step"
        if self.matches:
            return "matches the log: yes, bit for bit"
        loss, norm = self.loss - self.logged.loss, self.grad_norm - self.logged.grad_norm
        return f"matches the log: no, difference {loss:+.3g} in the loss, {norm:+.3g} in the gradient norm{self.why and f' ({self.why})'}"


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """What the process does now, in one line."""

    text: str


Record = ReplayProgress | ReplayedStep | RowShare | tuple[TokenRank, ...]


@dataclass(slots=True)
class ReplayResult:
    """All that is known so far of a step: `step` once it was recomputed, then `shares` row by row, then the `top` tokens."""

    step: ReplayedStep | None = None
    shares: dict[int, RowShare] = field(default_factory=dict)
    top: tuple[TokenRank, ...] = ()
    progress: str = ""
    _files: dict[bool, list[FileShare]] = field(default_factory=dict)  # before and after the shares are complete

    def add(self, record: Record) -> None:
        if isinstance(record, ReplayProgress):
            self.progress = record.text
        elif isinstance(record, RowShare):
            self.shares[record.row] = record
        elif isinstance(record, ReplayedStep):
            self.step, self.top = record, record.top
        else:
            self.top = record

    @property
    def complete(self) -> bool:
        """Whether the parts of all rows in the gradient are known."""
        return self.step is not None and len(self.shares) == len(self.step.rows)

    @property
    def norm(self) -> float:
        """What the rows' and tokens' parts in the gradient are parts of: the step's norm until all are known, then their sum.

        Both are the same up to rounding. A step in bf16 can differ by some per cent, as the parts are computed in float32.
        """
        if self.step is None or not self.complete:
            return 0.0 if self.step is None else self.step.grad_norm
        return math.fsum(share.share for share in self.shares.values())

    def ordered(self, *, by_gradient: bool = False) -> list[StepRow]:
        """The rows, those first that have the largest part in the loss, or in the gradient's norm once all are known."""
        rows = self.step.rows if self.step else ()
        if by_gradient and self.complete:
            return sorted(rows, key=lambda row: -_finite(self.shares[row.number].share))
        return sorted(rows, key=lambda row: -_finite(row.total))

    def tokens(self, most: int, *, by_gradient: bool = False) -> list[TokenRank]:
        """Up to `most` of the targets with the largest parts, in the order of `ordered`."""
        step = self.step
        if step is None:
            return []
        if by_gradient and self.complete:
            return sorted(self.top, key=lambda one: -_finite(self.shares[one.row].tokens[one.position]))[:most]
        return sorted(self.top, key=lambda one: -_finite(step.rows[one.row].losses[one.position]))[:most]

    def by_file(self) -> list[FileShare]:
        """Each file's part, the largest part in the loss first; empty if places are unknown."""
        step = self.step
        if step is None:
            return []
        if self.complete not in self._files:
            self._files[self.complete] = self._by_file(step)
        return self._files[self.complete]

    def _by_file(self, step: ReplayedStep) -> list[FileShare]:
        found: dict[str, list[float]] = {}  # rows, loss, share of the norm
        for row in step.rows:
            ends = [*(part.first - 1 for part in row.parts[1:]), len(row.losses)][: len(row.parts)]
            for part, end in zip(row.parts, ends, strict=True):
                targets = slice(max(0, part.first - 1), end)  # target p is token p + 1
                share = self.shares.get(row.number)
                sums = found.setdefault(part.place.file, [0, 0.0, 0.0])
                sums[0] += 1
                sums[1] += math.fsum(row.losses[targets])
                sums[2] += math.fsum(share.tokens[targets]) if share else 0.0
        norm = self.norm if self.complete and self.norm > 0 else None
        shares = [
            FileShare(file, int(rows), loss / step.total if step.total > 0 else math.nan, part / norm if norm else None)
            for file, (rows, loss, part) in found.items()
        ]
        return sorted(shares, key=lambda one: -_finite(one.loss))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def place_text(place: TokenPlace | None, name: str) -> str:
    """Where a token stands, with the file called `name`: `noise.txt, byte 4,096`. Empty if unknown."""
    if place is None:
        return ""
    record = "" if place.record is None else f", record {place.record:,}"
    return f"{name}{record}" + ("" if place.offset is None else f", byte {place.offset:,}")


# ── lines of JSON ────────────────────────────────────────────────────────────────────────────────────────────────────


def parse(raw: dict[str, Any]) -> Record | None:
    """The record in a line of the process; None if it is of another kind. Raises `UserError` if it reports a problem or is
    damaged."""
    if "problem" in raw:
        raise UserError(str(raw["problem"]))
    try:
        if "progress" in raw:
            return ReplayProgress(str(raw["progress"]))
        if "share" in raw:
            return RowShare(int(raw["row"]), float(raw["norm"]), float(raw["share"]), tuple(map(float, raw["tokens"])))
        if "top" in raw:
            return tuple(map(_rank, raw["top"]))
        return _step(raw["step"]) if "step" in raw else None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"the process that recomputes the step wrote a line that can't be read ({error!r})") from error


def _step(raw: dict[str, Any]) -> ReplayedStep:
    special = set(raw["special"])
    vocabulary = {}
    for id, data in raw["bytes"].items():
        decoded = bytes.fromhex(data)
        vocabulary[int(id)] = Token(int(id), decoded, token_text(decoded), int(id) in special)
    rows = tuple(
        StepRow(
            int(row["row"]),
            tuple(vocabulary[id] for id in row["ids"]),
            tuple(math.nan if loss is None else max(0.0, float(loss)) for loss in row["losses"]),
            tuple(RowPart(int(first), _place(place)) for first, place in row["parts"]),
        )
        for row in raw["rows"]
    )
    logged = raw["logged"]
    return ReplayedStep(
        int(raw["step"]), int(raw["begun"]), float(raw["loss"]), float(raw["grad_norm"]), float(raw["lr"]),
        None if logged is None else Logged(float(logged["loss"]), float(logged["grad_norm"])),
        rows, tuple(_change(one, vocabulary) for one in raw["pins"]), tuple(map(_rank, raw["top"])), str(raw["why"]),
        str(raw["unplaced"]), bool(raw["dropout"]),
    )  # fmt: skip


def _place(raw: list[Any]) -> TokenPlace:
    file, offset, record = raw
    return TokenPlace(str(file), None if offset is None else int(offset), None if record is None else int(record))


def _rank(raw: list[Any]) -> TokenRank:
    row, position, place = raw
    return TokenRank(int(row), int(position), None if place is None else _place(place))


def _change(raw: dict[str, Any], vocabulary: dict[int, Token]) -> StepPinChange:
    before, after, *losses = (
        None if raw[name] is None else float(raw[name]) for name in ("before", "after", "loss_before", "loss_after")
    )
    token = None if raw["token"] is None else vocabulary[int(raw["token"])]
    return StepPinChange(
        Pin(str(raw["prompt"]), raw["target"]), token, before, after, losses[0], losses[1], str(raw["problem"])
    )
