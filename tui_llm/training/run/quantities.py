"""What a run's chart can show over the steps, by objective: fields of `Metric`, with names and their meaning.

A run on text has its losses only, which `RunSnapshot` names itself. Does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tui_llm.training.run.curve import SHARES, Average, Envelope, Point, moving_average
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING, REWARD


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


QUANTITIES: dict[str, tuple[Quantity, ...]] = {
    PRETRAINING: (),
    PREFERENCE: (
        Quantity("loss", "loss", "val_loss", "−ln σ(margin), mean of the pairs; ln 2 where the margin is 0",
                 levels=(("ln 2", math.log(2)),), log=True),
        Quantity("margin", "margin", "val_margin", "chosen reward − rejected reward, mean of the pairs",
                 levels=(("start model", 0.0),)),
        Quantity("agreement %", "agreement", "val_agreement", "share of the pairs whose margin is above 0",
                 levels=(("chance", 50.0),), factor=100.0),
        Quantity("rewards", "chosen_reward", "rejected_reward", "β (ln π − ln π of the start model), mean of the batch; both can fall",
                 ("chosen", "rejected"), (("start model", 0.0),)),
        Quantity("KL", "kl", "val_kl", "KL(π ‖ start model) per token of the held-out answers, nats; 0 = identical",
                 levels=(("identical", 0.0),)),
    ),
    REWARD: (
        Quantity("reward", "reward", "val_reward", "mean score of the drawn answers", ("batch", "evaluation")),
        Quantity("KL", "kl", "val_kl", "KL(π ‖ start model) per drawn token, nats, an estimate; 0 = identical",
                 ("batch", "evaluation"), levels=(("identical", 0.0),)),
        Quantity("spread", "reward_std", "reward_std", "standard deviation of the scores within a prompt; 0: nothing to learn",
                 ("batch", ""), (("all equal", 0.0),)),
    ),
}  # fmt: skip
"""The first one is shown until another is chosen."""


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
    """Collects the curves of an objective's quantities from the metrics of a run."""

    def __init__(self, objective: str) -> None:
        self.objective = objective
        self._curves = [(one, Envelope(), Envelope()) for one in QUANTITIES.get(objective, ())]

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
