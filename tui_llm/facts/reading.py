"""`Reading`: everything that the panes show for one request.

A `Reading` is made in one place (`engine.py`), never changes, and carries the request and the weights that it was
computed for. It holds plain numbers, no tensors; panes compute none of these numbers themselves. Probabilities are in
[0, 1], losses in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tui_llm.common.display import visible, visible_token
from tui_llm.common.numbers import counted
from tui_llm.facts import report
from tui_llm.facts.interventions import mark
from tui_llm.facts.model import ModelChoice, Weights, seen_words
from tui_llm.facts.prediction import Distribution, LossReading, TokenScore
from tui_llm.facts.request import Request
from tui_llm.facts.tokens import Token, Tokenization


@dataclass(frozen=True, slots=True, repr=False)
class Reading:
    """The answer to one `Request`.

    prompt_ids: all ids before the prediction. `fed` of them, the last ones, were fed to the model (fewer than all if
        the prompt is longer than the context).
    distribution: the prediction for the token after the first `position` ids of `prompt_ids`; None if there is nothing
        to predict from, and `problem` then says why.
    following: the text's own token at that position; following_score: how it was predicted; span: its characters in the
        prompt (those of the whole character, if the token is only a part of one).
    scores: one per token, for the last of `prompt_ids`, if requested; None for a token without a prediction (the first
        that was fed, and those before it).
    """

    request: Request
    weights: Weights
    tokens: Tokenization
    prompt_ids: tuple[int, ...]  # start token, prompt, continuation
    fed: int
    distribution: Distribution | None
    loss: LossReading | None
    problem: str | None = None
    position: int = 0
    following: Token | None = None
    scores: tuple[TokenScore | None, ...] = ()
    milliseconds: float = 0.0  # time to answer, forward pass included
    forward_tokens: int = 0  # tokens run through the model for it (0: all from the cache)
    following_score: TokenScore | None = None
    span: tuple[int, int] | None = None  # prompt[start:end]; None at the end, and in the continuation

    @property
    def choices(self) -> tuple[ModelChoice, ...]:
        """What its numbers depend on beside weights and text."""
        request = self.request
        return self.weights.choices.lines(
            self.weights.dtype,
            start_token=request.start_token,
            chat=request.chat,
            fed=self.fed,
            count=len(self.prompt_ids),
        )

    def seen_words(self, later: int = 0) -> str:
        """How many of the tokens the model sees; empty if it sees all of them. later: for a prediction that so many of the
        last tokens did not precede, as an earlier one of the continuation."""
        count = len(self.prompt_ids) - later
        return seen_words(min(count, self.fed), count)

    # A notebook or the Python prompt shows a reading as the command line prints it.

    def __repr__(self) -> str:
        """Model, tokens, prediction and loss."""
        tokens = self.tokens
        shown = "│".join(visible_token(piece.text) for piece in tokens.pieces[-40:])
        parts = [
            report.heading(self.weights, self.choices),
            f"{counted(tokens.count, 'token')}: {shown}",
        ]
        if self.position < len(self.prompt_ids):
            parts.append(f"after the first {self.position:,} of them:")
        if changed := mark(self.request.interventions):
            parts.append(changed)
        if self.problem:
            parts.append(visible(self.problem))
        if self.distribution is not None:
            parts.append(report.distribution_text(self.distribution))
        if self.loss is not None:
            parts.append(visible(self.loss.problem) if self.loss.problem else report.loss_text(self.loss))
        return "\n".join(parts)

    def __rich__(self) -> Any:
        from rich.text import Text

        return Text(repr(self), no_wrap=True)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"
