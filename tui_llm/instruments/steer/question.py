"""Activation steering: what a direction in the residual stream does to a prediction and to a continuation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import RESIDUAL, STEER, Intervention, ModelPart
from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import Candidate, GeneratedToken
from tui_llm.facts.request import Question

SMALLEST = 0.5  # a step of the coefficient
MOST = 1000.0  # so large a coefficient drowns everything else


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction: the residual stream before block `layer` (the number of blocks: after the last) after the prompt
    `toward` minus that after `against`, both at their last token; or the vector in `file`. layer: None is the file's."""

    toward: str = ""
    against: str = ""
    layer: int | None = None
    file: str = ""


@dataclass(frozen=True, slots=True)
class SteerQuestion(Question["Steering"]):
    """The request's prediction and continuation as they are, and with `coefficient` × the direction added to every token.

    rows: candidates of each next-token table; tokens: length of each continuation, drawn with `seed`.
    """

    direction: Direction
    coefficient: float = 1.0
    rows: int = 8
    tokens: int = 24
    seed: int = 1
    uses_parts: ClassVar[bool] = False  # the answer itself switches the interventions on and off


@dataclass(frozen=True, slots=True)
class SteerSide:
    """The next token's candidates, and a continuation; the same uniform numbers draw both sides' tokens."""

    candidates: tuple[Candidate, ...]
    steps: tuple[GeneratedToken, ...]

    @property
    def text(self) -> str:
        return b"".join(step.bytes for step in self.steps).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Steering:
    """norm: the direction's Euclidean length; stream: that of the residual stream to which it is added, at the text's last
    token. intervention: the change, for `Request.interventions`. made_with: the model that a file's direction is from."""

    weights: Weights
    direction: Direction  # its layer is known
    coefficient: float
    norm: float
    stream: float
    before: SteerSide
    after: SteerSide
    intervention: Intervention
    made_with: str = ""


@dataclass(frozen=True, slots=True)
class SteerSaveQuestion(Question[str]):
    """Write the direction of two prompts to a safetensors file under `path`; over an existing one with `force` only. The
    answer is the path."""

    direction: Direction
    path: str
    force: bool = False
    writes: ClassVar[bool] = True
    queued: ClassVar[bool] = True
    uses_parts: ClassVar[bool] = False


def check_coefficient(value: float) -> float:
    """Raises `UserError` unless it is a number from −`MOST` to `MOST`."""
    if not -MOST <= value <= MOST:  # also refuses nan
        raise UserError(f"the coefficient is {value:g}; give a number from -{MOST:g} to {MOST:g}, such as 4")
    return value


def steps_of(coefficient: float, direction: int) -> float:
    """The next coefficient above (+1) or below (−1): in steps of a half."""
    made = (round(coefficient / SMALLEST) + direction) * SMALLEST
    return max(-MOST, min(MOST, made))


def intervention_of(
    direction: Direction, layer: int, toward: tuple[int, ...], against: tuple[int, ...], coefficient: float
) -> Intervention:
    """The direction times the coefficient, as an intervention; `toward` and `against` are the prompts' ids."""
    part = ModelPart(RESIDUAL, layer)
    if direction.file:
        return Intervention(part, STEER, coefficient=coefficient, file=direction.file)
    return Intervention(part, STEER, toward, against, coefficient=coefficient)
