"""Textual messages to the lab from the engine thread, the panes and other screens. They hold plain data only."""

from __future__ import annotations

from typing import Any

from textual.message import Message

from tui_llm.facts.model import ModelInfo, Weights
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question, Target
from tui_llm.instruments.gradient.question import GradientQuestion

# ── from the engine thread ───────────────────────────────────────────────────────────────────────────────────────


class EngineProgress(Message):
    """The engine is doing something that may take a while; an empty text means it has finished."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, EngineProgress)


class RoomWanted(Message):
    """A pane has `rows` lines to show; None: as many as there is room for."""

    def __init__(self, pane: str, rows: int | None) -> None:
        self.pane = pane
        self.rows = rows
        super().__init__()


class TreeWanted(Message):
    """Open the tree of continuations."""


class ModelOpened(Message):
    """A model was opened. `fresh` is False if the same run moved on to a newer checkpoint."""

    def __init__(self, weights: Weights, fresh: bool = True) -> None:
        self.weights = weights
        self.fresh = fresh
        super().__init__()


class ReadingReady(Message):
    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, ReadingReady)


class Failed(Message):
    """A request failed; `line` says why and what to do, in one line of foreign text."""

    def __init__(self, what: str, line: str) -> None:
        self.what = what  # engine, open, read, generate, models
        self.line = line
        super().__init__()


class Answered(Message):
    """An instrument's answer to `question`, or in `problem` why there is none, in one line of foreign text."""

    def __init__(self, question: Question, answer: Any, problem: str = "") -> None:
        self.question = question
        self.answer = answer
        self.problem = problem
        super().__init__()


class Drawn(Message):
    """Tokens that a generation drew since the last such message, and the reading after them if there is one."""

    def __init__(
        self, job: int, tokens: tuple[GeneratedToken, ...], reading: Reading | None, speed: float | None = None
    ) -> None:
        self.job = job
        self.tokens = tokens
        self.reading = reading
        self.speed = speed  # tokens per second, measured over the last ones
        super().__init__()


class GenerationEnded(Message):
    def __init__(self, job: int, reason: str) -> None:
        self.job = job
        self.reason = reason
        super().__init__()


class ModelsListed(Message):
    def __init__(self, models: tuple[ModelInfo, ...]) -> None:
        self.models = models
        super().__init__()


# ── from panes and other screens ─────────────────────────────────────────────────────────────────────────────────


class TargetChosen(Message):
    """Make this the loss's target. None: it follows the likeliest token again."""

    def __init__(self, target: Target | None) -> None:
        self.target = target
        super().__init__()


class RowsWanted(Message):
    """The table shows these places of the vocabulary in this order, and lacks their rows."""

    def __init__(self, order: str, places: range) -> None:
        self.order, self.places = order, places
        super().__init__()


class TableCommand(Message):
    """Do something with the table or the row under its cursor; `what` is a key of
    `CandidateTableController.commands`."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__()


class TokensAccepted(Message):
    """Move the generated text into the prompt."""


class StepShown(Message):
    """Show how generated token `index` was drawn (or would be, if it is the next one): once, or `many` times."""

    def __init__(self, index: int, many: bool = False) -> None:
        self.index = index
        self.many = many
        super().__init__()


class RunNoticed(Message):
    """The watched run is done, has died or raised an alarm: `lines`, which contain foreign text."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__()


class CheckpointSaved(Message):
    """The watched run has saved a new checkpoint; a model that follows the run opens it."""

    def __init__(self, run: str, step: int) -> None:
        self.run = run
        self.step = step
        super().__init__()


class RunWatched(Message):
    """Another run is being watched."""

    def __init__(self, run: str) -> None:
        self.run = run
        super().__init__()


class ModelChosen(Message):
    """Open this model; `model` is an argument for `Engine.open`."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__()


class GradientWanted(Message):
    """Compute the loss's gradient; None cancels it."""

    def __init__(self, question: GradientQuestion | None) -> None:
        self.question = question
        super().__init__()


class LearnWanted(Message):
    """Train a copy of the weights on the prompt and target that are shown."""
