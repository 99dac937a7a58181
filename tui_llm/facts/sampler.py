"""The sampler's settings: temperature, cuts and repetition penalty. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tui_llm.common.errors import UserError

# Which the app starts with. The commands and Python start with temperature 1 and all tokens: p is raw p.
APP_TEMPERATURE, APP_TOP_P = 0.8, 0.9
GENERATE_TOP_K = 50  # of transformers' `generate`, unless a model's generation_config.json has another


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """Applied in this order: repetition penalty, temperature, softmax, top-k, top-p, min-p, renormalization (see
    `llm/predict/distribution.py`).

    temperature: divides the logits; 0 is greedy (all probability on the largest logit).
    top_k: keep the k most probable tokens; 0 keeps all.
    top_p: keep the smallest set whose cumulative probability reaches p; 1 keeps all, 0 keeps one.
    min_p: keep tokens whose probability is at least this fraction of the largest; 0 keeps all.
    sequential_cuts: as `generate` of transformers: each cut is of what the cut before left, so top-p counts the
        probabilities renormalized after top-k. Tokens that tie with the k-th are kept; top-p cuts the lower ids of a
        tie.
    repetition_penalty: divides the positive and multiplies the negative logits of tokens that occur in the text; 1 is
        off.

    Raises `UserError` on a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    sequential_cuts: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature is {self.temperature}; give a number from 0 (greedy) up, such as 0.8")
        if self.top_k < 0:
            raise UserError(f"top-k is {self.top_k}; give 0 (off) or how many tokens to keep")
        for name, value in (("top-p", self.top_p), ("min-p", self.min_p)):
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value}; give a number from 0 to 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UserError(
                f"repetition penalty is {self.repetition_penalty}; give a number above 0: 1 is off, 1.2 makes repeats rarer"
            )

    @classmethod
    def of_generate(cls, temperature: float = 1.0) -> SamplerSettings:
        """What `generate(do_sample=True)` of transformers uses if neither it nor a generation_config.json says more."""
        return cls(temperature=temperature, top_k=GENERATE_TOP_K, sequential_cuts=True)

    @property
    def cuts(self) -> bool:
        """Whether top-k, top-p or min-p is on."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def greedy(self) -> bool:
        return self.temperature == 0
