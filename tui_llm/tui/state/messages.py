"""What the asker's thread and the panes tell the lab: frozen facts and intents, nothing else."""

from __future__ import annotations

from typing import Any

from textual.message import Message

from tui_llm.facts.model import ModelInfo, Weights
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question, Target
from tui_llm.instruments.gradient.question import GradientQuestion

# ── from the asker ───────────────────────────────────────────────────────────────────────────────────────────────


class Progress(Message):
    """The engine is busy with something that may take a while; empty text: not any more."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Progress)


class TreeWanted(Message):
    """Open the tree of continuations."""


class Opened(Message):
    """A model stands open. `fresh` is false where the same run moved on to a newer checkpoint."""

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
    """Something that was asked can't be had; `line` says why and what to do, in one line of foreign text."""

    def __init__(self, what: str, line: str) -> None:
        self.what = what  # engine, open, read, generate, models
        self.line = line
        super().__init__()


class Answered(Message):
    """What the question's instrument answered, or why it couldn't, in one line of foreign text."""

    def __init__(self, question: Question, answer: Any, problem: str = "") -> None:
        self.question = question
        self.answer = answer
        self.problem = problem
        super().__init__()


class Drawn(Message):
    """Tokens that a generation drew since the last such message, and where known the moment after them."""

    def __init__(
        self, job: int, tokens: tuple[GeneratedToken, ...], reading: Reading | None, speed: float | None = None
    ) -> None:
        self.job = job
        self.tokens = tokens
        self.reading = reading
        self.speed = speed  # tokens a second, measured over the last ones
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
    """A row of the table was made the loss's target."""

    def __init__(self, target: Target) -> None:
        self.target = target
        super().__init__()


class RowsWanted(Message):
    """The table shows these places of the vocabulary in this order, and has not got their rows."""

    def __init__(self, order: str, places: range) -> None:
        self.order, self.places = order, places
        super().__init__()


class TableAsked(Message):
    """Something is to be done with the table or the row under its cursor: what a `Tabling` method is named."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__()


class TokensAccepted(Message):
    """Put the generated text into the prompt."""


class StepShown(Message):
    """See how drawn token number `index` was chosen (or would be, where it is still to come): once, or `many` times."""

    def __init__(self, index: int, many: bool = False) -> None:
        self.index = index
        self.many = many
        super().__init__()


class CheckpointSaved(Message):
    """The watched run has a checkpoint that was not seen before: a model that follows it opens it."""

    def __init__(self, run: str, step: int) -> None:
        self.run = run
        self.step = step
        super().__init__()


class RunWatched(Message):
    """Another run is watched from now on."""

    def __init__(self, run: str) -> None:
        self.run = run
        super().__init__()


class ModelChosen(Message):
    """Open this model: what `Engine.open` takes."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__()


class GradientWanted(Message):
    """Ask for the loss's gradient; None: not any more."""

    def __init__(self, question: GradientQuestion | None) -> None:
        self.question = question
        super().__init__()


class LearnWanted(Message):
    """Let a copy of the weights learn the prompt and target that are shown."""
