"""Two or three models on one text: what each predicts, what the text costs each, and where they disagree most."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question

MOST_OTHERS = 2  # all are in memory, and their tables stand beside each other


@dataclass(frozen=True, slots=True)
class CompareModelsQuestion(Question["ModelComparison"]):
    """The request's text in the open model and in `others`: each a model's name, a folder or a file, `:int8` or another
    format of `weight_names.WEIGHTS` behind it.

    seed, tokens: of the continuation that each model samples. rows: the most tokens and pieces that are compared.
    """

    others: tuple[str, ...] = ()
    seed: int = 1
    tokens: int = 30
    rows: int = 8


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One of the models. `target_bytes`: the bytes of the target's tokens; 0 without a target.

    continuation: token i is drawn with the uniform number of (seed, i), which is the same for all models.
    """

    reading: Reading
    target_bytes: int
    continuation: tuple[GeneratedToken, ...]


@dataclass(frozen=True, slots=True)
class TextPiece:
    """The shortest piece of the text that is whole tokens in all vocabularies; its loss in each model, in bits."""

    text: str
    bytes: int
    bits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SharedCandidate:
    """A next token, with its raw probability in each model; None in a model of another vocabulary."""

    id: int
    text: str
    raw_probabilities: tuple[float | None, ...]

    @property
    def difference(self) -> float:
        """The largest raw probability minus the smallest."""
        known = [value for value in self.raw_probabilities if value is not None]
        return max(known) - min(known)


@dataclass(frozen=True, slots=True)
class Divergence:
    """Of the raw probabilities p of the next token in the models number `first` and `second`, over the whole vocabulary.

    forward: KL(first ‖ second) = Σ p₁ · log₂(p₁ ÷ p₂), in bits; reverse: KL(second ‖ first); inf where a probability is
    0 in one only. total_variation: ½ Σ |p₁ − p₂|, from 0 to 1.
    """

    first: int
    second: int
    forward: float
    reverse: float
    total_variation: float


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """divergences: of each two models that have the same vocabulary; the ids of others mean different tokens.

    candidates: the likeliest tokens of each model, likeliest in any model first; differences: the tokens whose raw
    probabilities differ most. Both of the first models that share a vocabulary; empty if none do.
    bytes: of the part of the text for which all models have a loss; bits: its loss in each.
    most: the pieces of that part whose losses differ most, largest difference first.
    problem: why the text can't be compared piece by piece; then `bytes` is 0.
    """

    models: tuple[ComparedModel, ...]
    divergences: tuple[Divergence, ...]
    candidates: tuple[SharedCandidate, ...]
    differences: tuple[SharedCandidate, ...]
    bytes: int
    bits: tuple[float, ...]
    most: tuple[TextPiece, ...]
    problem: str = ""

    def divergence(self, first: int, second: int) -> Divergence | None:
        """Of two models, by their numbers from 0; None if their vocabularies differ."""
        return next((one for one in self.divergences if (one.first, one.second) == (first, second)), None)
