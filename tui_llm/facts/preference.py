"""Settings of learning from preferences, and what it measures. No torch here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.facts.setting import Range, Setting

_LEAST = math.nextafter(0, 1)
BETA = Range(_LEAST, 100, "a number above 0 and up to 100, such as 0.1")
SFT_WEIGHT = Range(0, 1000, "a number from 0 to 1000, such as 1")
LEARNING_RATE = Range(_LEAST, 1, "a number above 0 and up to 1, such as 0.00002")
STEPS = Range(1, 200, "a whole number from 1 to 200")


def _setting(default: Any, metavar: str, values: Range | None, help: str) -> Any:
    return field(default=default, metadata={"setting": Setting(metavar, values, help)})


@dataclass(frozen=True, slots=True)
class DPOSettings:
    """The loss of direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290, equation 7) and two variants.

    beta: strength of the pull to the reference, per nat of log-ratio; a reward is β (ln π − ln ref).
    length_normalized: each log-ratio is divided by its answer's number of tokens (Lambert et al. 2024, Tülu 3, arXiv
        2411.15124, section 5.1), so that a long answer's many tokens don't outweigh a short one's.
    sft_weight: α of the term α · (−ln π(chosen) ÷ its tokens) that is added to the loss (Pang et al. 2024, arXiv
        2404.19733: RPO in TRL); it keeps the chosen answer's own probability from falling.

    Raises `UserError` if a value is out of range.
    """

    beta: float = _setting(0.1, "B", BETA, "pull to the reference")
    length_normalized: bool = _setting(False, "", None, "log-ratios per token (LN-DPO)")
    sft_weight: float = _setting(0.0, "A", SFT_WEIGHT, "weight of the chosen's loss (RPO)")

    def __post_init__(self) -> None:
        _check(self, DPO)

    @property
    def loss_formula(self) -> str:
        """The loss of a pair, wherever it is described."""
        return f"−ln σ(margin){f' + {self.sft_formula}' if self.sft_weight else ''}"

    @property
    def sft_formula(self) -> str:
        return f"{self.sft_weight:g} · (−ln π(chosen) ÷ its tokens)"

    def reward_formula(self, reference: str = "ref") -> str:
        """The reward of an answer, wherever it is described; π and `reference` are those of the whole answer."""
        ratio = f"β (ln π − ln {reference})"
        return f"{ratio} ÷ its tokens" if self.length_normalized else ratio

    @property
    def loss_at_start(self) -> float | None:
        """The loss of a pair whose margin is 0, as before the first step; None if that depends on the pair."""
        return None if self.sft_weight else math.log(2)

    @property
    def both_fell(self) -> str:
        """Why both answers of a pair can become less probable, wherever it is said."""
        per_token = " per token" if self.length_normalized else ""
        if self.loss_at_start is not None:
            return (
                f"both answers became less probable: the loss counts only the difference of the two log-ratios{per_token}, so both may "
                f"fall as long as the rejected one falls more{per_token}; the probability went to other answers. An SFT term (weight "
                "above 0) holds the chosen one up"
            )
        return (
            f"both answers became less probable: beside the difference of the two log-ratios{per_token} the loss counts "
            f"{self.sft_formula}, which falls only where the chosen one rises; here it rose. A larger SFT weight, or a smaller "
            "learning rate, can hold the chosen one up"
        )


@dataclass(frozen=True, slots=True)
class PreferenceRecipe:
    """How a choice is learned: `steps` AdamW steps (betas 0.9 and 0.999, no weight decay) on its pair. Raises
    `UserError` if a value is out of range."""

    dpo: DPOSettings = field(default_factory=DPOSettings)
    learning_rate: float = _setting(2e-5, "R", LEARNING_RATE, "AdamW's step size")
    steps: int = _setting(1, "N", STEPS, "optimizer steps per choice")

    def __post_init__(self) -> None:
        _check(self, RECIPE)


def _settings_of(kind: type[Any]) -> dict[str, Setting]:
    return {one.name: one.metadata["setting"] for one in dataclasses.fields(kind) if "setting" in one.metadata}


DPO, RECIPE = _settings_of(DPOSettings), _settings_of(PreferenceRecipe)
"""Every setting by its field's name."""


def _check(settings: Any, known: dict[str, Setting]) -> None:
    for name, setting in known.items():
        if give := setting.problem(value := getattr(settings, name)):
            raise UserError(f"{name.replace('_', ' ')} is {value:g}; give {give}")


@dataclass(frozen=True, slots=True)
class PairState:
    """A pair under a policy. `chosen_logp` and `rejected_logp` are ln π of the whole answer after the prompt, a sum over
    its tokens, in nats; a reward is β (ln π − ln ref), per token if length-normalized; `margin` is the chosen reward
    minus the rejected one; `loss` includes the SFT term."""

    chosen_logp: float
    rejected_logp: float
    chosen_reward: float
    rejected_reward: float
    margin: float
    loss: float


@dataclass(frozen=True, slots=True)
class RankedPair:
    """Two answers to a prompt, as token ids, one of them chosen, and how the choice is learned."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    recipe: PreferenceRecipe = field(default_factory=PreferenceRecipe)

    @property
    def compared(self) -> tuple[tuple[int, ...], frozenset[tuple[int, ...]]]:
        """What was compared, whichever answer won."""
        return self.prompt, frozenset((self.chosen, self.rejected))


@dataclass(frozen=True, slots=True)
class PairChange:
    """What the steps on one ranked pair changed.

    losses[i]: before step i + 1, in nats; the first of a fresh copy is ln 2, plus the SFT term.
    chosen_tokens, rejected_tokens: ln π of each token, (before, after).
    agreed: whether the margin was above 0 before the first step, so that the pair was held out until then; None if that
        says nothing: no pair had been learned, or this one had been.
    kl: KL(π ‖ ref) of the next token after a prompt, in nats, the mean over the `prompts` different ones so far.
    left_out: tokens at the prompt's beginning that did not fit into the context.
    """

    before: PairState
    after: PairState
    losses: tuple[float, ...]
    chosen_tokens: tuple[tuple[float, float], ...]
    rejected_tokens: tuple[tuple[float, float], ...]
    agreed: bool | None
    kl: float
    prompts: int
    left_out: int

    @property
    def both_fell(self) -> bool:
        """Whether both answers are less probable than before."""
        return self.after.chosen_logp < self.before.chosen_logp and self.after.rejected_logp < self.before.rejected_logp
