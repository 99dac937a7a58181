"""What crosses from the maths to the screen: frozen dataclasses with plain numbers, and the questions they answer.

A `Reading` is a fact: made in one place (`engine.py`), never changed, tagged with the request and the weights that it
answers. Nothing here holds a tensor, and panes compute none of these numbers themselves. Probabilities are in 0…1,
losses in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import Distribution, LossReading, TokenScore
from tui_llm.facts.request import Request
from tui_llm.facts.tokens import Token, Tokenization

# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, repr=False)
class Reading:
    """Everything that the panes show for one `Request`. `distribution` is None where there is nothing to predict
    from, and `problem` then says why. `fed` of the prompt's `prompt_ids` were fed to the model: the last ones, where
    the prompt is longer than the context. The prediction is for the token after the first `position` of `prompt_ids`;
    `following` is the text's own token there. `scores` are of the last of `prompt_ids`, where they were asked for: None
    for a token that nothing predicts (the first that was fed, and those before it). `following_score` is how `following` was
    predicted; `span` is where it stands in the prompt: the characters that it makes, or is a part of."""

    request: Request
    weights: Weights
    tokens: Tokenization
    prompt_ids: tuple[int, ...]  # all that is before the prediction: start token, prompt, continuation
    fed: int
    distribution: Distribution | None
    loss: LossReading | None
    problem: str | None = None
    position: int = 0
    following: Token | None = None
    scores: tuple[TokenScore | None, ...] = ()
    milliseconds: float = 0.0  # what the answer took, forward pass included
    forward_tokens: int = 0  # how many tokens had to be run through the model for it (0: all from the cache)
    following_score: TokenScore | None = None
    span: tuple[int, int] | None = None  # prompt[start:end]; None at the end, and in the continuation

    # Its fields are for programs; people in a notebook or at Python's prompt see it as the command line prints it.

    def __repr__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Any:
        from rich.text import Text

        return Text(repr(self), no_wrap=True)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"


# How a reading is printed. `api` sets it to `report.reading_text`; report.py imports this module, so this one can't import it.
as_text: Callable[[Reading], str] = object.__repr__
