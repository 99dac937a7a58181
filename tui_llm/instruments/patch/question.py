"""Activation patching: which value of a clean prompt brings its prediction back in a changed one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from tui_llm.facts.interventions import ATTENTION, MLP, PATCH, RESIDUAL, Intervention, ModelPart
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question, Target
from tui_llm.facts.tokens import Token

PARTS = {"residual": RESIDUAL, "attention": ATTENTION, "mlp": MLP}
"""What can be patched, by the names of the command line and of Python."""
WORDS = {RESIDUAL: "residual stream before a block", ATTENTION: "output of a block's attention", MLP: "output of a block's MLP"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PatchQuestion(Question["PatchPiece"]):
    """A piece of the grid of the request's text, up to its position: the changed prompt.

    clean: the prompt whose values are put into it, encoded as the request's. kind: `RESIDUAL`, `ATTENTION` or `MLP`.
    rival: the token to compare with; None is the changed prompt's most probable one other than the target. The
    target is the first token of the request's target; without one, or with the likeliest, the clean prompt's most
    probable token.
    known: so many batches are known already; seconds: compute further ones for so long, at least one of them.
    """

    clean: str = ""
    kind: str = RESIDUAL
    rival: Target | None = None
    known: int = 0
    seconds: float = math.inf
    uses_parts: ClassVar[bool] = False  # the answer itself switches the interventions on and off


@dataclass(frozen=True, slots=True)
class PatchCell:
    """effect: the logit difference, target minus rival, with the value of this part (row `layer`) at this token patched."""

    layer: int
    token: int
    effect: float


@dataclass(frozen=True, slots=True)
class PatchPiece:
    """Some cells of a grid, and what all of them share.

    tokens: the changed prompt's; counterparts: for each the aligned token of the clean prompt, None where it has none,
    as it is shorter. layers: the rows; of the residual stream, row l stands before block l, the last after the last.
    clean, changed: the logit difference of both prompts without a patch; the clean prompt's without interventions, too.
    left_out: how many tokens at the start of the clean and of the changed prompt exceed the context.
    done: so many of `total` batches of cells are known with this piece.
    """

    weights: Weights
    kind: str
    tokens: tuple[Token, ...]
    counterparts: tuple[Token | None, ...]
    layers: tuple[int, ...]
    target: Token
    rival: Token
    clean: float
    changed: float
    clean_ids: tuple[int, ...]
    left_out: tuple[int, int]
    cells: tuple[PatchCell, ...]
    done: int
    total: int

    @property
    def shift(self) -> int:
        """Token i is aligned with token i + `shift` of the clean prompt."""
        return len(self.clean_ids) - len(self.tokens)

    def differs(self, token: int) -> bool:
        """Whether the aligned tokens are different ones."""
        other = self.counterparts[token]
        return other is not None and other.id != self.tokens[token].id

    def patch(self, layer: int, token: int) -> Intervention:
        """What the cell computes, as an intervention on the changed prompt; its tokens are counted from the text's start."""
        first = self.left_out[1]
        return Intervention(
            ModelPart(self.kind, layer), PATCH, self.clean_ids, shift=self.shift - first, at=token + first
        )


@dataclass(slots=True)
class PatchGrid:
    """The cells that are known so far: effects[row][token], None where it is not known or there is no aligned token."""

    piece: PatchPiece  # the newest
    effects: list[list[float | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.effects = [[None] * len(self.piece.tokens) for _ in self.piece.layers]
        self.take(self.piece)

    def take(self, piece: PatchPiece) -> None:
        self.piece = piece
        for cell in piece.cells:
            self.effects[cell.layer][cell.token] = cell.effect

    @property
    def complete(self) -> bool:
        return self.piece.done >= self.piece.total

    def normalised(self, effect: float | None) -> float | None:
        """0 = the changed prompt's logit difference, 1 = the clean prompt's. None if these two are equal."""
        between = self.piece.clean - self.piece.changed
        return None if effect is None or not between else (effect - self.piece.changed) / between

    def normalised_rows(self) -> list[list[float | None]]:
        return [[self.normalised(effect) for effect in row] for row in self.effects]

    def largest(self) -> tuple[int, int] | None:
        """The cell (row, token) that changes the logit difference most."""
        known = [
            (abs(effect - self.piece.changed), row, token)
            for row, effects in enumerate(self.effects)
            for token, effect in enumerate(effects)
            if effect is not None
        ]
        return max(known)[1:] if known else None


def alignment(piece: PatchPiece) -> Sequence[str]:
    """What is to be said of prompts that are not of the same length."""
    lines = []
    clean, changed = piece.left_out
    if clean or changed:
        lines.append(
            f"the model's context is {piece.weights.context} tokens: the first {clean} of the clean prompt and the first {changed} of the "
            "changed one are left out"
        )
    if piece.shift:
        longer, shorter = len(piece.clean_ids), len(piece.tokens)
        lines.append(
            f"the clean prompt has {longer} token{'s' * (longer != 1)}, the changed one {shorter}: they are aligned from the end"
            + (f"; {_first(-piece.shift)} of the changed one can't be patched" if piece.shift < 0 else "")
        )
    return lines


def _first(count: int) -> str:
    return "the first token" if count == 1 else f"the first {count} tokens"
