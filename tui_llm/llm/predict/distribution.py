"""Logits → probabilities: softmax, temperature, top-k, top-p and min-p.

A model outputs a logit z for each token of its vocabulary. Softmax turns the logits into probabilities that sum to one:

    p_i = e^(z_i / T) / Σ_j e^(z_j / T)  =  e^(z_i / T − logsumexp(z / T))

The second form is computed, with the largest logit subtracted first so that e^z can't overflow. The temperature T
sharpens (T < 1) or flattens (T > 1) the distribution; T = 0 is the limit, all probability on the largest logit. The
repetition penalty θ (Keskar et al. 2019, CTRL, arXiv:1909.05858) is applied before: the logits of tokens that occur in
the text are divided by θ if positive and multiplied by θ if negative, once, however often the token occurs. Then the
tail is cut, in this order, and the rest is renormalized once:

    top-k   keep the k most probable tokens
    top-p   keep the smallest set whose cumulative probability reaches p (nucleus sampling: Holtzman et al. 2019,
            arXiv:1904.09751); the sum runs over the full vocabulary's probabilities, not those left by top-k
    min-p   keep tokens whose probability is at least p times the largest (Nguyen et al. 2024, arXiv:2407.01082)

Each rule keeps a prefix of the list in descending order of probability (ties: lower id first), so together they keep a
prefix too.

`generate` of transformers cuts in sequence: each rule sees what the rule before left, renormalized. Only top-p after
top-k differs by that. At the boundary, its top-k keeps all tokens that tie with the k-th, and its top-p, which sorts in
ascending order, cuts the lower ids of a tie (if stable; torch's order of more than 16 values with ties is not).
`SamplerSettings.sequential_cuts` does the same; kept tokens are then listed before cut ones of the same probability.
Example: p = 0.5, 0.2, 0.2, 0.1 with top-k 3 and top-p 0.75 keeps three tokens, since 0.5 + 0.2 < 0.75; in sequence it
keeps two, since (0.5 + 0.2) / 0.9 ≥ 0.75.

`softmax.py` has the softmax itself, V, and the precision of it all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tui_llm.common.errors import UserError
from tui_llm.facts.prediction import Candidate, Distribution, Rest
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.predict.cuts import kept_count, kept_in_sequence
from tui_llm.llm.predict.softmax import (
    DIVERGED,
    QUIET,
    Array,
    as_array,
    check,
    entropies_of,
    logsumexp,
    unchecked_log_softmax,
)
from tui_llm.llm.tokens.token_bytes import token_text

BytesOf = Callable[[int], bytes]  # a token's bytes by its id


@QUIET
def penalise(logits: Any, seen: Iterable[int], penalty: float) -> Array:
    """Logits (V,) with the repetition penalty applied to the ids `seen`: z ÷ θ if z > 0, z · θ if z < 0. Ids outside
    the vocabulary are ignored. Not in place."""
    logits = as_array(logits)
    ids = np.array(sorted({id for id in seen if 0 <= id < logits.shape[-1]}), dtype=np.int64)
    if penalty == 1 or not len(ids):
        return logits
    penalised, own = logits.copy(), logits[ids]
    penalised[ids] = np.where(own < 0, own * penalty, own / penalty)
    return penalised


def rank(logits: Any, ids: Sequence[int]) -> list[int]:
    """The rank of each id among logits (V,): 1 + the number of strictly greater logits. Ties share a rank."""
    logits = as_array(logits)
    return [1 + int((logits > logits[id]).sum()) for id in ids]


def descending(values: Array) -> tuple[Array, Array]:
    """Sort float32 values (V,) without NaN in descending order: the sorted values, and their indices (V,) int64, ties
    by lower index. Equals a stable sort, in less than half its time for 50,000 values.

    The bit pattern of a positive float, read as an integer, is monotonic in its value. Those of negative floats are in
    reverse order, so all their bits but the sign are inverted. Packing bits and index into one int64 then allows a
    plain integer sort.
    """
    values = as_array(values)
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)  # + 0 turns −0 into 0, its equal
    rising = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    order = np.sort((~rising << 32) | np.arange(len(values))) & 0xFFFFFFFF
    return values[order], order


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """Logits in descending order: everything that does not depend on temperature and cuts. Make it once and call
    `process` for each change of those settings.

    order: ids (V,) int64 by descending score, ties by lower id.
    scores, logits: float32 (V,) in that order: the logits after the repetition penalty, and those before it (the same if
        there is none).
    raw: the softmax of `logits`, float64 (V,).
    ranked: the logits in their own descending order.
    logsumexp: of the logits; entropy: of `raw`, in nats.
    """

    order: Array
    scores: Array
    logits: Array
    ranked: Array
    raw: Array
    logsumexp: float
    entropy: float

    @classmethod
    def of(
        cls,
        logits: Any,
        whose: str = "the model's logits",
        cure: str = DIVERGED,
        *,
        seen: Iterable[int] = (),
        penalty: float = 1.0,
    ) -> Sorted:
        """From logits (V,) of any float dtype on any device, with the repetition penalty applied to the ids `seen`.
        Raises `UserError` as `check` does."""
        logits = as_array(logits)
        check(logits, whose, cure)
        penalised = penalise(logits, seen, penalty)
        scores, order = descending(penalised)
        own = ranked = scores
        if penalised is not logits:
            own, ranked = logits[order], np.sort(logits)[::-1]
        log_p = unchecked_log_softmax(own, 1.0)
        return cls(order, scores, own, ranked, np.exp(log_p), float(logsumexp(own)), float(entropies_of(log_p)))

    def tempered(self, temperature: float) -> Array:
        """Softmax of the scores at a temperature ≥ 0, float64 (V,), in `order`."""
        if temperature == 0:
            one_hot = np.zeros_like(self.raw)
            one_hot[0] = 1.0
            return one_hot
        if temperature == 1 and self.scores is self.logits:
            return self.raw
        return np.exp(unchecked_log_softmax(self.scores, temperature))

    def process(self, settings: SamplerSettings) -> Processed:
        """Apply temperature, softmax, top-k, top-p, min-p and renormalization."""
        if settings.sequential_cuts and not settings.greedy:
            kept = kept_in_sequence(self._scores_by_id(), settings)[self.order]
            count = int(kept.sum())
            listed = self if bool(kept[:count].all()) else self._partitioned(kept)
            tempered = listed.tempered(settings.temperature)
            cumulative = tempered.cumsum()
            count = min(count, int((tempered > 0).sum()))
        else:
            listed, tempered = self, self.tempered(settings.temperature)
            cumulative = tempered.cumsum()
            count = kept_count(settings, tempered, cumulative)
        count = max(count, 1)

        mass = float(cumulative[count - 1])
        probability = tempered / mass
        probability[count:] = 0.0
        return Processed(listed, settings, tempered, cumulative, probability, count, mass)

    def _scores_by_id(self) -> Array:
        scores = np.empty_like(self.scores)
        scores[self.order] = self.scores
        return scores

    def _partitioned(self, kept: Array) -> Sorted:
        """The same with the `kept` tokens first: among tokens of equal scores, it changes which come first."""
        places = np.concatenate([np.flatnonzero(kept), np.flatnonzero(~kept)])
        return dataclasses.replace(
            self,
            order=self.order[places],
            scores=self.scores[places],
            logits=self.logits[places],
            raw=self.raw[places],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Processed:
    """Probabilities after all sampler settings. All arrays are (V,), in the descending order of `order`.

    tempered: float64, after temperature; cumulative: its running sum.
    probability: float64, after cuts and renormalization, summing to 1.
    kept_count: how many tokens, from the first, survived the cuts; kept_mass: the sum of their `tempered`. A token whose
        p is below the smallest float64, 5e-324, is not among them: p is 0 then.
    """

    sorted: Sorted
    settings: SamplerSettings
    tempered: Array
    cumulative: Array
    probability: Array
    kept_count: int
    kept_mass: float

    @property
    def order(self) -> Array:
        return self.sorted.order

    @property
    def raw(self) -> Array:
        return self.sorted.raw

    @property
    def kept(self) -> Array:
        """bool (V,): which tokens survived the cuts."""
        return np.arange(len(self.order)) < self.kept_count

    @QUIET
    def distribution(self, top: int, bytes_of: BytesOf) -> Distribution:
        """The prediction in plain numbers, with the table's first `top` rows."""
        logits, peak, total = self.sorted, self.peak, self.total
        return Distribution(
            sampler=self.settings,
            vocabulary=len(logits.order),
            logsumexp=logits.logsumexp,
            entropy=logits.entropy,
            kept=self.kept_count,
            kept_mass=self.kept_mass,
            candidates=self.rows(top, bytes_of),
            rest=self.rest(top),
            choices=math.exp(logits.entropy),
            peak=peak,
            total=total,
            log_total=peak + math.log(total),
            exp_total=float(np.exp(np.float64(logits.logsumexp))),  # inf if it overflows
        )

    def rows(self, top: int, bytes_of: BytesOf) -> tuple[Candidate, ...]:
        """The table's first `top` rows (fewer if the vocabulary is smaller)."""
        return self.at(slice(0, max(top, 0)), bytes_of)

    def likeliest(self, count: int, bytes_of: BytesOf) -> tuple[Candidate, ...]:
        """The rows of the `count` largest logits, ties by lower id: other rows than the table's first where a repetition
        penalty changes the order."""
        count = min(max(count, 0), len(self.order))
        if not count:
            return ()
        logits = self.sorted.logits
        places = np.flatnonzero(logits >= self.sorted.ranked[count - 1])
        first = np.lexsort((self.order[places], -logits[places]))[:count]
        return self.at(places[first], bytes_of)

    def row(self, place: int, bytes_of: BytesOf) -> Candidate:
        """The row at index `place` of the table."""
        return self.at(slice(place, place + 1), bytes_of)[0]

    @property
    def peak(self) -> float:
        """The largest score ÷ T. Softmax subtracts it from every score ÷ T before e^x, to avoid overflow."""
        return float(self.sorted.scores[0]) / (self.settings.temperature or 1)

    @property
    def total(self) -> float:
        """Σ e^(score ÷ T − peak) over the vocabulary, the softmax denominator: from 1 to V."""
        return float(self._numerators(slice(None)).sum())

    @QUIET
    def _numerators(self, places: slice | Array) -> Array:
        if self.settings.greedy:
            return self.tempered[places]
        scores = self.sorted.scores
        shifted = scores[places].astype(np.float64) - float(scores[0])
        return np.exp(shifted / self.settings.temperature)

    def rest(self, top: int) -> Rest:
        """The sum over all rows that `rows(top)` leaves out."""
        below = slice(max(top, 0), None)
        return Rest(
            count=len(self.order[below]),
            raw_probability=float(self.raw[below].sum()),
            tempered=float(self.tempered[below].sum()),
            probability=float(self.probability[below].sum()),
            kept=max(self.kept_count - max(top, 0), 0),
        )

    def place(self, u: float) -> int:
        """Inverse-CDF sampling: the first index whose cumulative probability exceeds u in [0, 1). Raises ValueError if
        u is out of range."""
        if not 0 <= u < 1:
            raise ValueError(f"u must be in [0, 1), not {u}")
        steps = self.probability[: self.kept_count].cumsum()
        found = int(np.searchsorted(steps, u, side="right"))
        return min(found, self.kept_count - 1)  # rounding can leave the total slightly below u

    @QUIET
    def at(self, places: slice | Array, bytes_of: BytesOf) -> tuple[Candidate, ...]:
        """The rows at the indices `places`, in that order."""
        part, scores = self.sorted.logits[places], self.sorted.scores[places].astype(np.float64)
        greater = np.searchsorted(-self.sorted.ranked, -part)  # the first equal logit's index is their count
        ids = self.order[places].tolist()
        data = [bytes_of(id) for id in ids]
        columns = (
            part,
            np.exp(part.astype(np.float64)),
            self.raw[places],
            self.tempered[places],
            self.cumulative[places],
            self.probability[places],
            self.kept[places],
            scores,
            scores / (self.settings.temperature or 1),
            self._numerators(places),
        )
        names = ((1 + greater).tolist(), ids, data, map(token_text, data))
        return tuple(Candidate(*cells) for cells in zip(*names, *(column.tolist() for column in columns), strict=True))


def process(logits: Any, settings: SamplerSettings, seen: Iterable[int] = ()) -> Processed:
    """Apply repetition penalty (to the ids `seen`), temperature, softmax, top-k, top-p, min-p and renormalization to
    logits (V,). Raises `UserError` as `check` does. If only the settings change and the logits don't, keep
    `Sorted.of(logits)` and call its `process`."""
    return Sorted.of(logits, seen=seen, penalty=settings.repetition_penalty).process(settings)


@QUIET
def change(logits: Any, overrides: Sequence[tuple[int, float]]) -> Array:
    """A copy of logits (V,) with some overridden, (id, logit) each. Raises `UserError` for an id outside the
    vocabulary."""
    logits = as_array(logits)
    changed = logits.copy()
    for id, value in overrides:
        if not 0 <= id < logits.shape[-1]:
            raise UserError(f"there is no token {id}; ids go from 0 to {logits.shape[-1] - 1}")
        changed[id] = value
    return changed


def draw(processed: Processed, u: float) -> int:
    """The id that a uniform number u in [0, 1) selects: the first, in descending order of probability, whose cumulative
    probability exceeds u. Never a token that was cut or has probability 0. Raises ValueError if u is out of range."""
    return int(processed.order[processed.place(u)])
