"""Logits → probabilities: softmax, and the sampler's cuts.

A model gives each token of its vocabulary a score, the logit z. Softmax makes them probabilities that sum to
one:

    p_i = e^(z_i / T) / Σ_j e^(z_j / T)  =  e^(z_i / T − logsumexp(z / T))

The second form is the one computed, with the largest logit subtracted first: no e^z overflows. The
temperature T sharpens (T < 1) or flattens (T > 1); T = 0 is its limit, all probability on the largest logit.
Before it comes the repetition penalty θ, where there is one (Keskar et al. 2019, CTRL, arXiv:1909.05858): the logits of
tokens that stand in the text already are divided by θ where positive and multiplied by θ where negative, once, however
often they stand there. Then the tail is cut, in this order, and what is left is renormalised once:

    top-k   keep the k likeliest tokens
    top-p   keep the smallest set whose cumulative probability reaches p (the nucleus: Holtzman et al. 2019,
            arXiv:1904.09751); the probabilities summed are the full vocabulary's, whatever top-k cut
    min-p   keep tokens at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082)

Each keeps a start of the list "likeliest first, ties by lower id", so together they keep a start of it too.
Shapes: V is the vocabulary. Logits are sliced to it first (`Window`). Softmax is in float32,
sums of probabilities in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.facts.sampler import SamplerSettings

# float32 puts a sum of probabilities off by about this much: 0.4 + 0.3 must reach a top-p of 0.7.
ROUNDING = 1e-6


_DIVERGED = "the weights are damaged or training has diverged; open another model or an earlier checkpoint"


def check(logits: Tensor, whose: str = "the model's logits", cure: str = _DIVERGED) -> None:
    """Raises `UserError` where softmax of logits (…, V) has no meaning: a row with NaN or +inf, or all −inf.
    `whose` and `cure` are put into its text: whose logits these are, and what to do about them."""
    if logits.shape[-1] == 0:
        raise UserError("there are no logits: give at least one token")
    peak = logits.amax(-1)  # NaN wins over everything, so one pass answers all three
    if peak.isnan().any():
        raise UserError(f"{whose} contain NaN: {cure}")
    if peak.isposinf().any():
        raise UserError(f"{whose} contain +inf: {cure}")
    if peak.isneginf().any():
        raise UserError(f"{whose} are all −inf, so no token is possible: {cure}")


def penalise(logits: Tensor, seen: Iterable[int], penalty: float) -> Tensor:
    """Logits (V,) with the repetition penalty laid on the ids `seen`: z ÷ θ where z > 0, z · θ where z < 0. Ids beyond V
    are left alone. `logits` itself stays as it is."""
    ids = torch.tensor(
        sorted({id for id in seen if 0 <= id < logits.shape[-1]}), dtype=torch.int64, device=logits.device
    )
    if penalty == 1 or not len(ids):
        return logits
    penalised, own = logits.clone(), logits[ids]
    penalised[ids] = torch.where(own < 0, own * penalty, own / penalty)
    return penalised


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """ln p of logits (V,) at a temperature from 0 up, float32 (V,). Raises `UserError` as `check` does."""
    logits = logits.float()
    check(logits)
    if temperature == 0:
        one_hot = torch.full_like(logits, -torch.inf)
        one_hot[_first_largest(logits)] = 0.0
        return one_hot
    return _log_softmax(logits, temperature)


def probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Softmax of logits (V,) at a temperature from 0 up, float32 (V,). At 0: one on the largest logit, the
    lowest id on a tie. Raises `UserError` as `check` does."""
    return log_softmax(logits, temperature).exp()


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    # The shift before the division, both in float64: at T = 1e-10 the largest stays 0 and the others go to
    # −inf, where float32 would round a still smaller T to 0 and make 0 ÷ 0 of it.
    shifted = ((logits.double() - logits.max().double()) / temperature).float()
    return shifted - shifted.logsumexp(-1)


def _first_largest(logits: Tensor) -> int:
    return int((logits == logits.max()).nonzero()[0])  # argmax promises nothing about ties


def rank(logits: Tensor, ids: Sequence[int]) -> list[int]:
    """The rank of each id among logits (V,): 1 + how many logits are strictly greater. Ties share a rank."""
    return [1 + int((logits > logits[id]).sum()) for id in ids]


def entropy(logits: Tensor) -> float:
    """−Σ p ln p of softmax(logits (V,)), in nats, where 0 ln 0 = 0: 0 when certain, ln V when all are
    alike."""
    return _entropy(log_softmax(logits))


def entropies(logits: Tensor) -> Tensor:
    """The entropy of each row of logits (T, V), in nats: float64 (T,). Raises `UserError` as `check` does."""
    check(logits)
    return _entropies(logits.float().log_softmax(-1))


def _entropies(log_p: Tensor) -> Tensor:
    log_p = log_p.double()
    terms = (log_p.exp() * log_p).nan_to_num(nan=0.0)  # 0 × −inf is NaN
    return 0.0 - terms.sum(-1)  # not a bare minus, which makes −0 of 0


def _entropy(log_p: Tensor) -> float:
    return float(_entropies(log_p))


@dataclass(frozen=True, slots=True)
class Row:
    """One token of the table, in plain numbers.

    rank: 1 + strictly greater logits, before any penalty. exp_logit: e^logit (inf where that's beyond a float). raw_probability:
    softmax of the logits alone. score: the logit after the repetition penalty; scaled: score ÷ T (just the score where T = 0);
    numerator: e^(scaled − the largest of them), softmax's numerator. tempered: after temperature. cumulative: Σ tempered down to this row, which
    top-p looks at. probability: after cuts and renormalising, what is drawn from. kept: whether it can be
    drawn.
    """

    rank: int
    id: int
    logit: float
    exp_logit: float
    raw_probability: float
    tempered: float
    cumulative: float
    probability: float
    kept: bool
    score: float
    scaled: float
    numerator: float


@dataclass(frozen=True, slots=True)
class Rest:
    """The tokens below the table's rows, added up. `kept` is how many of them can be drawn."""

    count: int
    raw_probability: float
    tempered: float
    probability: float
    kept: int


def descending(values: Tensor) -> tuple[Tensor, Tensor]:
    """float32 (V,) without NaN, the largest first, and their places (V,) int64, of equal ones the lower first: what
    `torch.sort(values, descending=True, stable=True)` gives, in less than half its time for 50,000.

    A float's bits, read as an integer, grow with it (below 0 they fall, and are turned over), so that bits and place in one
    integer can be sorted as plain numbers.
    """
    bits = (values + 0.0).view(torch.int32).to(torch.int64)  # + 0.0: −0 becomes 0, which it equals
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    order = ((~rising << 32) | torch.arange(len(values))).sort().values & 0xFFFFFFFF
    return values[order], order


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """Logits, likeliest first: what all sampler settings share. Make it once, `process` it as settings
    change.

    order: ids (V,) int64 by descending score, ties by lower id; scores, logits, raw: float32 (V,), the logits after and
    before the repetition penalty (the same where there is none) and the logits' plain softmax, in that order; ranked: the
    logits by their own size; logsumexp of the logits, and entropy of `raw`, in nats.
    """

    order: Tensor
    scores: Tensor
    logits: Tensor
    ranked: Tensor
    raw: Tensor
    logsumexp: float
    entropy: float

    @classmethod
    def of(
        cls,
        logits: Tensor,
        whose: str = "the model's logits",
        cure: str = _DIVERGED,
        *,
        seen: Iterable[int] = (),
        penalty: float = 1.0,
    ) -> Sorted:
        """From logits (V,) of any float type on any device, with the repetition penalty on the ids `seen`. Raises
        `UserError` as `check` does."""
        logits = logits.detach().float().cpu()
        check(logits, whose, cure)
        penalised = penalise(logits, seen, penalty)
        scores, order = descending(penalised)
        own = ranked = scores
        if penalised is not logits:
            own, ranked = logits[order], logits.sort(descending=True).values
        log_p = _log_softmax(own, 1.0)
        return cls(order, scores, own, ranked, log_p.exp(), float(own.logsumexp(-1)), _entropy(log_p))

    def tempered(self, temperature: float) -> Tensor:
        """float32 (V,): softmax of the scores at a temperature from 0 up, in `order`."""
        if temperature == 0:
            one_hot = torch.zeros_like(self.raw)
            one_hot[0] = 1.0
            return one_hot
        if temperature == 1 and self.scores is self.logits:
            return self.raw
        return _log_softmax(self.scores, temperature).exp()

    def process(self, settings: SamplerSettings) -> Processed:
        """Temperature, softmax, top-k, top-p, min-p, renormalise."""
        tempered = self.tempered(settings.temperature)
        cumulative = tempered.cumsum(-1, dtype=torch.float64)

        # How many each rule keeps from the top. What has probability 0 can't be drawn, so it's never kept.
        count = int((tempered > 0).sum())
        if settings.top_k:
            count = min(count, settings.top_k)
        if settings.top_p < 1:
            before = cumulative - tempered  # a token is needed while the sum of those before it is short of p
            count = min(count, int((before < settings.top_p - ROUNDING).sum()))
        if settings.min_p:
            least = settings.min_p * float(tempered[0]) * (1 - ROUNDING)
            count = min(count, int((tempered >= least).sum()))
        count = max(count, 1)

        mass = float(cumulative[count - 1])
        probability = tempered.double() / mass
        probability[count:] = 0.0
        return Processed(self, settings, tempered, cumulative, probability, count, mass)


@dataclass(frozen=True, slots=True, eq=False)
class Processed:
    """Probabilities after the sampler's settings. All tensors are (V,), likeliest first: ids in `order`.

    tempered: float32, after temperature; cumulative: float64, its running sum; probability: float64, after
    cuts and renormalising, summing to 1. The first `kept_count` tokens are kept, with `kept_mass` of
    `tempered` between them.
    """

    sorted: Sorted
    settings: SamplerSettings
    tempered: Tensor
    cumulative: Tensor
    probability: Tensor
    kept_count: int
    kept_mass: float

    @property
    def order(self) -> Tensor:
        return self.sorted.order

    @property
    def raw(self) -> Tensor:
        return self.sorted.raw

    @property
    def kept(self) -> Tensor:
        """bool (V,): which tokens can be drawn."""
        return torch.arange(len(self.order)) < self.kept_count

    def rows(self, top: int) -> list[Row]:
        """The table's first `top` rows (fewer where the vocabulary is smaller)."""
        return self.at(slice(0, max(top, 0)))

    def row(self, place: int) -> Row:
        """The row at `place` (from 0) in the table."""
        return self.at(slice(place, place + 1))[0]

    @property
    def peak(self) -> float:
        """The largest score ÷ T: what softmax takes off every score ÷ T before e^x, so that nothing overflows."""
        return float(self.sorted.scores[0]) / (self.settings.temperature or 1)

    @property
    def total(self) -> float:
        """Σ of all numerators e^(score ÷ T − peak), softmax's denominator: from 1 to V."""
        return float(self._numerators(slice(None)).sum())

    def _numerators(self, places: slice | Tensor) -> Tensor:
        if self.settings.greedy:
            return self.tempered[places].double()
        scores = self.sorted.scores
        return ((scores[places].double() - scores[0].double()) / self.settings.temperature).exp()

    def rest(self, top: int) -> Rest:
        """All that `rows(top)` leaves out."""
        below = slice(max(top, 0), None)
        return Rest(
            count=len(self.order[below]),
            raw_probability=float(self.raw[below].double().sum()),
            tempered=float(self.tempered[below].double().sum()),
            probability=float(self.probability[below].sum()),
            kept=max(self.kept_count - max(top, 0), 0),
        )

    def place(self, u: float) -> int:
        """Where u in [0, 1) falls on the cumulative distribution: the first place whose running sum exceeds
        it."""
        if not 0 <= u < 1:
            raise ValueError(f"u must be in [0, 1), not {u}")
        steps = self.probability[: self.kept_count].cumsum(-1)
        found = int(torch.searchsorted(steps, u, right=True))
        return min(found, self.kept_count - 1)  # the sum may round to a little under u

    def at(self, places: slice | Tensor) -> list[Row]:
        """The rows at those places (from 0), in their order."""
        part, scores = self.sorted.logits[places], self.sorted.scores[places].double()
        greater = torch.searchsorted(-self.sorted.ranked, -part)  # the first equal logit's place counts those before it
        columns = (
            1 + greater,
            self.order[places],
            part,
            part.double().exp(),
            self.raw[places],
            self.tempered[places],
            self.cumulative[places],
            self.probability[places],
            self.kept[places],
            scores,
            scores / (self.settings.temperature or 1),
            self._numerators(places),
        )
        return [Row(*cells) for cells in zip(*(column.tolist() for column in columns), strict=True)]


def process(logits: Tensor, settings: SamplerSettings, seen: Iterable[int] = ()) -> Processed:
    """Logits (V,) through repetition penalty (on the ids `seen`), temperature, softmax, top-k, top-p, min-p and
    renormalising. Raises `UserError` as `check` does. Keep `Sorted.of(logits)` instead where the settings change and the
    logits don't."""
    return Sorted.of(logits, seen=seen, penalty=settings.repetition_penalty).process(settings)


def change(logits: Tensor, overrides: Sequence[tuple[int, float]]) -> Tensor:
    """Logits (V,) with some set by hand, (id, logit) each. Raises `UserError` for an id that there is not."""
    changed = logits.clone()
    for id, value in overrides:
        if not 0 <= id < logits.shape[-1]:
            raise UserError(f"there is no token {id}; ids go from 0 to {logits.shape[-1] - 1}")
        changed[id] = value
    return changed


def draw(processed: Processed, u: float) -> int:
    """The id that a uniform number u in [0, 1) picks: the first, likeliest token first, whose cumulative
    probability exceeds u. Never a token that was cut or has probability 0. Raises ValueError on u out of
    range."""
    return int(processed.order[processed.place(u)])
