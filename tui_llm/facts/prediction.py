"""The prediction for a next token, the loss on a target, a generated token."""

from __future__ import annotations

from dataclasses import dataclass, field

from tui_llm.facts.sampler import SamplerSettings


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
