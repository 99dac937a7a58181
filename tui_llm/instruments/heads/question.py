"""Head detectors: how much of each head's attention goes to the previous token, to an earlier occurrence of the current
token, or to the token after that."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.head_scores import LENGTH, HeadScore, PatternCounts
from tui_llm.facts.interventions import Intervention
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class HeadsQuestion(Question["Heads"]):
    """The scores of all heads on random tokens that are repeated once; with `own_text`, on the request's text instead.

    seed: of the random tokens. length: how many, before they are repeated; fewer if the context is too short.
    """

    seed: int = 1
    length: int = LENGTH
    own_text: bool = False


@dataclass(frozen=True, slots=True)
class Heads:
    """The scores of all heads, in the order of layers and heads.

    length: the number of random tokens in each of `sequences` texts, before they are repeated; both are 0 for the request's
        own text.
    start: the token before them, `<|endoftext|>`, if the model's vocabulary has it.
    counts: the number of tokens that each score is a mean over.
    left_out: on random tokens, the interventions that are of a token of the request's text, by its number; the scores are
        those of the model without them.
    """

    question: HeadsQuestion
    weights: Weights
    heads: tuple[HeadScore, ...]
    counts: PatternCounts
    length: int
    sequences: int
    start: Token | None
    left_out: tuple[Intervention, ...] = ()
