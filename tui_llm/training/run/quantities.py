"""What a run's chart can show over the steps, by objective: fields of `Metric`, with names and their meaning.

A run on text has its losses only, which `RunSnapshot` names itself. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tui_llm.facts.policy import at_temperature
from tui_llm.training.run.curve import SHARES, Average, Envelope, Point, moving_average
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING, REWARD, TrainingSettings


@dataclass(frozen=True, slots=True)
class Quantity:
    """Two curves on one axis: the fields `line`, of every step, and `marks`, of the evaluations or of every step too.

    `meaning` says in one line what is shown, `levels` are horizontal lines. `factor` scales both, for per cent. `log` says
    whether a logarithmic axis can show it: all values are above 0.
    """

    name: str
    line: str
    marks: str
    meaning: str
    names: tuple[str, str] = ("batch", "held out")
    levels: tuple[tuple[str, float], ...] = ()
    factor: float = 1.0
    log: bool = False


LOSS_OF = {PREFERENCE: "pairs", REWARD: "answers"}
"""What the loss of a run that learns from answers is the mean of."""


def loss_formula(settings: TrainingSettings) -> str:
    """The loss of one pair or answer (`LOSS_OF`), wherever it is described; empty for a run on text."""
    if settings.objective == PREFERENCE:
        return settings.dpo.loss_formula
    return "KL weight · KL of the answer (the sum over its tokens) − its reward" if settings.objective == REWARD else ""


def loss_meaning(settings: TrainingSettings) -> str:
    """What a loss of the run is: its unit, or its formula."""
    if settings.objective == PRETRAINING:
        return "nats per token"
    return f"{loss_formula(settings)}; mean of the {LOSS_OF[settings.objective]}"


def shared_meaning(own: str, others: Iterable[str]) -> str:
    """What a chart of several runs says that it shows. What has one name is not the same quantity in all runs: a loss depends on
    the objective, and its formula on the settings."""
    return own if all(other == own for other in others) else "as each run measures it"


def shared(own: Quantity, others: Sequence[Quantity]) -> Quantity:
    """The quantity of a chart of several runs: with the levels that stand at the same value in all of them."""
    levels = tuple(level for level in own.levels if all(level in other.levels for other in others))
    return replace(own, meaning=shared_meaning(own.meaning, (other.meaning for other in others)), levels=levels)


def quantities(settings: TrainingSettings) -> tuple[Quantity, ...]:
    """What the chart of a run can show; the first one until another is chosen. None of a run on text."""
    return {PREFERENCE: _of_preferences, REWARD: _of_rewards}.get(settings.objective, lambda _: ())(settings)


def _of_preferences(settings: TrainingSettings) -> tuple[Quantity, ...]:
    start = settings.dpo.loss_at_start
    reward = settings.dpo.reward_formula("π of the start model")
    return (
        Quantity("loss", "loss", "val_loss", loss_meaning(settings) + ("" if start is None else "; ln 2 where the margin is 0"),
                 levels=() if start is None else (("ln 2", start),), log=True),
        Quantity("margin", "margin", "val_margin", "chosen reward − rejected reward, mean of the pairs",
                 levels=(("start model", 0.0),)),
        Quantity("agreement %", "agreement", "val_agreement", "share of the pairs whose margin is above 0",
                 levels=(("chance", 50.0),), factor=100.0),
        Quantity("rewards", "chosen_reward", "rejected_reward", f"{reward}, mean of the batch; both can fall",
                 ("chosen", "rejected"), (("start model", 0.0),)),
        Quantity("KL", "kl", "val_kl", "KL(π ‖ start model) per token of the held-out answers, nats; 0 = identical",
                 levels=(("identical", 0.0),)),
    )  # fmt: skip


def _of_rewards(settings: TrainingSettings) -> tuple[Quantity, ...]:
    drawn = f"KL(π ‖ start model){at_temperature(settings.temperature)} per drawn token"
    return (
        Quantity("reward", "reward", "val_reward", "mean score of the drawn answers", ("batch", "evaluation")),
        Quantity("KL", "kl", "val_kl", f"{drawn}, nats, an estimate; 0 = identical",
                 ("batch", "evaluation"), levels=(("identical", 0.0),)),
        Quantity("spread", "reward_std", "reward_std", "standard deviation of the scores within a prompt; 0: nothing to learn",
                 ("batch", ""), (("all equal", 0.0),)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Series:
    """The curves of a quantity, scaled by its factor, of bounded length; `averages` are those of `line`."""

    quantity: Quantity
    line: tuple[Point, ...] = ()
    marks: tuple[Point, ...] = ()
    averages: tuple[Average, ...] = ()

    @property
    def last(self) -> tuple[Point | None, Point | None]:
        """The newest points."""
        return (self.line[-1] if self.line else None), (self.marks[-1] if self.marks else None)


class SeriesReader:
    """Collects the curves of a run's quantities from its metrics."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.objective = settings.objective
        self._curves = [(one, Envelope(), Envelope()) for one in quantities(settings)]

    def add(self, metrics: Iterable[Metric]) -> None:
        for metric in metrics:
            for quantity, line, marks in self._curves:
                for curve, name in ((line, quantity.line), (marks, quantity.marks)):
                    value = getattr(metric, name)
                    if value is not None and (curve is line or quantity.names[1]):
                        curve.add(metric.step, value * quantity.factor)

    def series(self, steps: int) -> tuple[Series, ...]:
        """`steps` are all of the run's, for the windows of the averages."""
        windows = [(share, max(2, round(share * steps))) for share in SHARES]
        made = []
        for quantity, line, marks in self._curves:
            averages = tuple(Average(share, window, moving_average(line.sums(), window)) for share, window in windows)
            made.append(Series(quantity, line.points(), marks.points(), averages))
        return tuple(made)
