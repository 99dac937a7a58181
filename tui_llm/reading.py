"""What crosses from the maths to the screen: frozen dataclasses with plain numbers, and the questions they answer.

A `Reading` is a fact: made in one place (`engine.py`), never changed, tagged with the request and the weights that it
answers. Nothing here holds a tensor, and panes compute none of these numbers themselves. Probabilities are in 0…1,
losses in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from tui_llm.llm.sampler import SamplerSettings

# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Target:
    """What the loss asks for: one token chosen by id, text that is encoded on its own and teacher-forced, or (`own`) the
    token that the text itself goes on with at the request's position."""

    text: str | None = None
    id: int | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One moment to read: the prompt's text, and the ids that were generated after it (never re-encoded)."""

    number: int = 0
    prompt: str = ""
    continuation: tuple[int, ...] = ()
    allow_special: bool = False  # `<|endoftext|>` typed in the prompt is the special token, not 13 characters
    start_token: bool = False  # put an explicit `<|endoftext|>` in front, shown as a token like any other
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    target: Target | None = None
    tokenizer: str | None = None  # vocabulary that the Tokens pane shows; None is the model's own
    top: int = 200  # how many candidates to carry
    token_window: int = 4096  # how many of the last tokens to carry
    position: int | None = None  # read the prediction after so many tokens of the text; None: after all of them
    scores: bool = False  # how each token of the text was predicted, too
    overrides: tuple[tuple[int, float], ...] = ()  # what if: (id, logit) set by hand, in this one prediction
    chat: bool = False  # the prompt is a message: feed it as the model's chat template writes it

    @property
    def empty(self) -> bool:
        """There is no token: nothing to look at, and nothing to predict from."""
        return not (self.prompt or self.continuation or self.start_token or self.chat)


@dataclass(frozen=True, slots=True)
class Question:
    """What one of the `instruments` is asked about a moment, beyond its Reading. Each kind is a subclass in `facts/`."""

    request: Request
    writes: ClassVar[bool] = False  # answering it writes a file that the user asked for: the app's end waits for that


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Token:
    """A token is its id and its bytes. `text` is the bytes as UTF-8, with `<0xE2>` for each byte that is no
    character here; it is raw text: it passes `display.visible` before any screen."""

    id: int
    bytes: bytes
    text: str
    special: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring tokens that make whole characters together: tokens[start:stop] (indices into
    `Tokenization.tokens`). Nearly always one token; several where a character is split over them."""

    start: int
    stop: int
    text: str


@dataclass(frozen=True, slots=True)
class Tokenization:
    """A text's tokens in one vocabulary. `tokens` holds the last ones only where there are very many:
    tokens[0] is token number `first` (from 0) of `count`. `problem` says why there are none, if so."""

    tokenizer: str
    vocabulary: int
    count: int
    first: int
    tokens: tuple[Token, ...]
    pieces: tuple[Piece, ...]
    continuation: int = 0  # how many of the last tokens were generated, not typed
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """Whose numbers these are: the model's name and, for a run's checkpoint, its training step."""

    name: str
    step: int | None
    parameters: int
    layers: int
    heads: int
    width: int
    context: int  # tokens that the model can see at once
    vocabulary: int  # tokens that it can predict (padding ids not counted)
    device: str
    kind: str = "gpt2"  # the architecture; what is not GPT-2's layout runs through transformers
    start: str = "<|endoftext|>"  # the token that can stand in front of a text, as text; empty: there is none
    starts: bool = False  # the model has mostly seen that token in front of its texts
    chat: bool = False  # it has a chat template
    note: str = ""  # which newer checkpoints of the run were passed over, and why
    kept_as: str = "fp32"  # or half, int8: how the weights are kept (`weight_names.WEIGHTS`)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of the table. `rank` counts strictly greater logits, from 1 (ties share a rank).

    logit: the model's own; exp_logit: e^logit, the softmax numerator; raw_probability: softmax of the logits alone.
    tempered: after temperature, before any cut; cumulative: running sum of `tempered` down the table, this row included
    (what top-p is compared with); probability: after temperature, cuts and renormalising (what is drawn from);
    kept: whether it survived the cuts. The stages between: score, the logit after the repetition penalty; scaled,
    score ÷ T (just the score where T = 0); numerator, e^(scaled − `Distribution.peak`), which ÷ `Distribution.total` is `tempered`.
    """

    rank: int
    id: int
    bytes: bytes
    text: str
    logit: float
    exp_logit: float
    raw_probability: float
    tempered: float
    cumulative: float
    probability: float
    kept: bool
    score: float = 0.0
    scaled: float = 0.0
    numerator: float = 0.0


@dataclass(frozen=True, slots=True)
class Rest:
    """The vocabulary below the table's rows, as one row."""

    count: int
    raw_probability: float
    tempered: float
    probability: float
    kept: int  # how many of them survived the cuts


@dataclass(frozen=True, slots=True)
class Distribution:
    """The prediction for the next token. `entropy` is of the raw probabilities, in nats, and
    `choices` = e^entropy, the effective number of choices; `logsumexp` of the logits. `peak` is the largest logit after
    penalty and ÷ T, taken off before e^x; `total` is Σ e^(x − peak), so that ln Σ e^x = peak + ln total = `log_total`."""

    sampler: SamplerSettings
    vocabulary: int
    logsumexp: float
    entropy: float
    kept: int  # tokens that survived the cuts, of `vocabulary`
    kept_mass: float  # their probability after temperature, before renormalising
    candidates: tuple[Candidate, ...]
    rest: Rest
    choices: float = 0.0
    peak: float = 0.0
    total: float = 0.0
    log_total: float = 0.0
    exp_total: float = 0.0  # Σ e^logit, not shifted: ∞ where that is beyond a float


@dataclass(frozen=True, slots=True)
class TargetToken:
    """One token of the target under teacher forcing: loss = logsumexp − logit, in nats. `gradient` is p − 1, the
    gradient of the loss on the target's own logit."""

    id: int
    bytes: bytes
    text: str
    rank: int
    logit: float
    logsumexp: float
    probability: float
    loss: float
    gradient: float


@dataclass(frozen=True, slots=True)
class LossReading:
    """The loss on a target. sum and mean are over its tokens, in nats; bits = mean ÷ ln 2 and perplexity = e^mean
    are per token, like `uniform_loss` = ln(vocabulary), the loss of knowing nothing."""

    text: str
    tokens: tuple[TargetToken, ...]
    sum: float
    mean: float
    bits: float
    perplexity: float
    uniform_loss: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How a token of the text was predicted from those before it. surprisal = −ln p in nats; `entropy` is the
    prediction's, in nats; `rank` as in `Candidate`."""

    surprisal: float
    probability: float
    rank: int
    entropy: float


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
        from tui_llm.report import reading_text

        return reading_text(self)

    def __rich__(self) -> Any:
        from rich.text import Text

        return Text(repr(self), no_wrap=True)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One step of generation. `u` is the uniform number in [0, 1) that was laid on the cumulative distribution
    (likeliest token first); None where the step was greedy. `probability` is what it was drawn with;
    `text` is what the step adds to the text on the screen (empty while a character is incomplete)."""

    index: int
    id: int
    bytes: bytes
    text: str
    u: float | None
    probability: float
    raw_probability: float
    rank: int
    candidates: tuple[Candidate, ...]
    sampler: SamplerSettings = field(default_factory=SamplerSettings)  # as it was then
    seed: int = 0
    kept: int = 0  # how many tokens could be drawn
    by_hand: bool = False  # a person chose it: there was no draw
    ends: bool = False  # the token says that the text is over
    overrides: tuple[tuple[int, float], ...] = ()  # logits that were set by hand when it was chosen


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that could be opened. `kind` is one of shipped, run, model (the user's, or pulled), cache (the hub's library
    has it), folder. `size` is in bytes on disk; `origin` says where it is from, `pulled` whether it can be pulled again."""

    name: str
    kind: str
    path: str
    parameters: int | None
    context: int | None
    vocabulary: int | None
    step: int | None = None
    problem: str | None = None
    size: int | None = None
    origin: str = ""
    pulled: bool = False


class Engine(Protocol):
    """What the screen asks. One thread asks it; every method may take long and may raise `UserError`."""

    def open(self, model: str) -> Weights:
        """Opens a shipped model, a run or a folder by name or path; the old model stays if that fails."""
        ...

    def read(self, request: Request, overtaken: Callable[[], bool] = ...) -> Reading:
        """Raises `Overtaken` as soon as `overtaken()` is true."""
        ...

    def generate(
        self, request: Request, *, seed: int, start: int, count: int, stop: Callable[[], bool] = ...
    ) -> Iterator[GeneratedToken]:
        """Draws up to `count` tokens after the request's prompt and continuation. The draw of token number
        `start + i` is fixed by (seed, start + i) alone, so one at a time equals all at once."""
        ...

    def answer(self, question: Question, overtaken: Callable[[], bool] = ...) -> Any:
        """What the question's instrument answers (see `facts/`). Raises `Overtaken` as `read` does."""
        ...

    def refresh(self) -> Weights | None:
        """If the open model is a run that has a newer checkpoint, opens it and returns its weights; else None."""
        ...

    def models(self) -> Sequence[ModelInfo]: ...
