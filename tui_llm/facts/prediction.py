"""The next-token prediction, the loss on a target, a generated token."""

from __future__ import annotations

from dataclasses import dataclass, field

from tui_llm.facts.interventions import Intervention
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of the candidate table.

    rank: 1 + the number of strictly greater logits, before any penalty; ties share a rank.
    logit: the model's output; exp_logit: e^logit (inf if it overflows a float); raw_probability: softmax of the logits
        alone.
    score: the logit after the repetition penalty; scaled: score ÷ T (equal to score if T = 0).
    numerator: e^(scaled − `Distribution.peak`), the softmax numerator; divided by `Distribution.total` it gives
        `tempered`.
    tempered: probability after temperature, before the cuts.
    cumulative: running sum of `tempered` down the table, this row included; top-p compares this.
    probability: after temperature, cuts and renormalization; tokens are sampled from this.
    kept: whether the token survived the cuts.
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


LOGSUMEXP = "logsumexp of logits"
"""The name of `Distribution.logsumexp` wherever the other one, `Distribution.log_total`, can be seen too."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The sum over all tokens below the table's last row."""

    count: int
    raw_probability: float
    tempered: float
    probability: float
    kept: int  # how many of the `count` tokens survived the cuts


@dataclass(frozen=True, slots=True)
class Distribution:
    """The prediction for the next token.

    logsumexp: of the logits; entropy: of the raw probabilities, in nats; choices: e^entropy, the effective number of
        choices.
    peak: the largest logit after penalty and ÷ T, subtracted before e^x; total: Σ e^(x − peak); log_total: ln Σ e^x =
        peak + ln total.
    """

    sampler: SamplerSettings
    vocabulary: int
    logsumexp: float
    entropy: float
    kept: int  # tokens that survived the cuts, of `vocabulary`
    kept_mass: float  # the sum of their probabilities after temperature, before renormalization
    candidates: tuple[Candidate, ...]
    rest: Rest
    choices: float = 0.0
    peak: float = 0.0
    total: float = 0.0
    log_total: float = 0.0
    exp_total: float = 0.0  # Σ e^logit without subtracting the peak; inf if it overflows a float

    @property
    def score_name(self) -> str:
        """What is divided by T."""
        return "logit" if self.sampler.repetition_penalty == 1 else "penalised logit"

    @property
    def log_total_name(self) -> str:
        """The name of `log_total`. At T = 1 and without a penalty it is the same number as `logsumexp`."""
        return f"logsumexp of {self.score_name}s ÷ T"

    def intervals(self) -> list[tuple[float, float]]:
        """The parts of the cumulative distribution, on which u falls, of the listed candidates that were kept."""
        if self.sampler.greedy:
            return [(0.0, 1.0)]
        found, start = [], 0.0
        for place, candidate in enumerate(self.candidates[: self.kept], 1):
            stop = 1.0 if place == self.kept else min(1.0, candidate.cumulative / self.kept_mass)
            found.append((start, stop))
            start = stop
        return found


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """The loss on token `id`: nats = logsumexp − logit = −ln p (inf if the logit is −inf).

    rank: 1 + the number of strictly greater logits.
    gradient: p − 1, the gradient of the loss with respect to the token's own logit.
    """

    id: int
    rank: int
    logit: float
    logsumexp: float
    probability: float
    nats: float
    gradient: float


@dataclass(frozen=True, slots=True)
class TargetToken:
    """One token of a target and its loss under teacher forcing."""

    token: Token
    loss: TokenLoss


@dataclass(frozen=True, slots=True)
class LossReading:
    """The loss on a target. `sum` and `mean` are over its tokens, in nats. Per token: bits = mean ÷ ln 2, perplexity =
    e^mean (inf if it overflows a float), and uniform_loss = ln(vocabulary), the loss of a uniform prediction."""

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
    """How well a token of the text was predicted from the tokens before it; `entropy` of the prediction, in nats."""

    loss: TokenLoss
    entropy: float

    @property
    def surprisal(self) -> float:
        """−ln p, in nats."""
        return self.loss.nats

    @property
    def probability(self) -> float:
        return self.loss.probability

    @property
    def rank(self) -> int:
        return self.loss.rank


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One step of generation.

    u: the uniform number in [0, 1) that selected the token by inverse-CDF sampling, candidates in descending order of
        probability; None if the step was greedy.
    probability: the probability it was sampled with.
    text: what the step appends to the text on the screen (empty while a character is incomplete).
    """

    index: int
    id: int
    bytes: bytes
    text: str
    u: float | None
    probability: float
    raw_probability: float
    rank: int
    candidates: tuple[Candidate, ...]
    sampler: SamplerSettings = field(default_factory=SamplerSettings)  # the settings in effect at that step
    seed: int = 0
    kept: int = 0  # number of tokens that survived the cuts
    by_hand: bool = False  # the user chose the token; nothing was sampled
    ends: bool = False  # it is an end-of-text token
    overrides: tuple[tuple[int, float], ...] = ()  # logits that the user had overridden at that step, (id, logit)
    interventions: tuple[Intervention, ...] = ()  # the changes of the model's parts at that step
