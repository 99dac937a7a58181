"""Two models on one text: what each predicts, what the text costs each, and where they disagree most."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class VersusQuestion(Question["Versus"]):
    """The request's text in the open model and in `other`: a model's name, a folder or a file.

    seed, tokens: of the continuation that each model samples. rows: the most tokens and pieces that are compared.
    """

    other: str = ""
    seed: int = 1
    tokens: int = 30
    rows: int = 8


@dataclass(frozen=True, slots=True)
class VersusSide:
    """One of the models. `target_bytes`: the bytes of the target's tokens; 0 without a target.

    continuation: token i is drawn with the uniform number of (seed, i), which is the same for both models.
    """

    reading: Reading
    target_bytes: int
    continuation: tuple[GeneratedToken, ...]


@dataclass(frozen=True, slots=True)
class TextPiece:
    """The shortest piece of the text that is whole tokens in both vocabularies; its loss in each model, in bits."""

    text: str
    bytes: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A next token, with its raw probability in each model."""

    id: int
    text: str
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """Of the raw probabilities of the next token, over the whole vocabulary.

    forward: KL(first ‖ second) = Σ p₁ · log₂(p₁ ÷ p₂), in bits; reverse: KL(second ‖ first); inf where a probability is
    0 in one only. total_variation: ½ Σ |p₁ − p₂|, from 0 to 1. most: the tokens with the largest |p₁ − p₂|.
    """

    forward: float
    reverse: float
    total_variation: float
    most: tuple[Disagreement, ...]


@dataclass(frozen=True, slots=True)
class Versus:
    """divergence: None if the vocabularies differ: their ids then mean different tokens.

    bytes: of the part of the text for which both models have a loss; first_bits, second_bits: its loss in each.
    most: the pieces of that part whose losses differ most, largest difference first.
    problem: why the text can't be compared piece by piece; then `bytes` is 0.
    """

    first: VersusSide
    second: VersusSide
    divergence: Divergence | None
    bytes: int
    first_bits: float
    second_bits: float
    most: tuple[TextPiece, ...]
    problem: str = ""
