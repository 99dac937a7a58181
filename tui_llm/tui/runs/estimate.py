"""The new-run form's estimates: the cost of a run, and its duration, from measuring a few real steps."""

from __future__ import annotations

from textual import work
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted, duration
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan.cost import cost
from tui_llm.training.plan.fields import resolve_settings
from tui_llm.training.plan.step_time import Measurement, Rate
from tui_llm.training.run.settings import PRESETS, TrainingSettings
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.live import deliver, is_live


def cost_line(settings: TrainingSettings, shape: GPTConfig) -> str:
    found = cost(settings, shape)
    return (
        f"{fmt.parameters(found.parameters)} parameters · about {memory(found.memory_bytes)} · "
        f"{fmt.parameters(found.tokens)} tokens · {found.flops:.1e} FLOPs"
    )


def memory(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def rate_line(rate: Rate, settings: TrainingSettings, shape: GPTConfig) -> str:
    found = cost(settings, shape)
    fewer = f", with {counted(rate.rows, 'row')} at a time" if rate.rows < settings.batch_size else ""
    return (
        f"{fmt.compact(rate.tokens_per_second)} tokens/s on {rate.device} ({rate.steps} measured steps{fewer}): "
        f"{duration(rate.seconds(found.tokens))} for all {fmt.count(settings.steps)} steps, evaluations not counted"
    )


class Estimating(Widget):
    """The part of the form that shows what a run will cost."""

    _measurement: Measurement | None = None
    _asked = 0  # number of measurements started; the result of any but the newest is dropped

    @property
    def given(self) -> dict[str, str]:
        raise NotImplementedError

    @property
    def preset(self) -> str:
        raise NotImplementedError

    def text(self, name: str) -> str:
        raise NotImplementedError

    def first_wrong(self, without: tuple[str, ...] = ()) -> bool:
        raise NotImplementedError

    def show_cost(self, settled: tuple[TrainingSettings, GPTConfig] | None) -> None:
        line = cost_line(*settled) if settled else "the cost is shown once all fields are valid"
        self.query_one("#cost", Static).update(Content(line))

    def forget_estimate(self) -> None:
        """Cancels a running measurement, as its settings have changed."""
        self._asked += 1
        self._stop()
        self._tell("ctrl+e runs a few real steps to estimate the time")

    def _stop(self) -> None:
        measurement, self._measurement = self._measurement, None
        if measurement is not None:
            measurement.cancel()

    def on_unmount(self) -> None:
        self._asked += 1
        self._stop()

    def action_estimate(self) -> None:
        if self._measurement is not None:
            self.forget_estimate()
            return
        if self.first_wrong(without=("corpus", "name")):
            return
        self._asked += 1
        self._tell("running a few real steps, about 20 s (ctrl+e stops) …")
        self._measure(self._asked, self.given, self.preset, self.text("device"))

    @work(thread=True, group="estimate")
    def _measure(self, number: int, given: dict[str, str], preset: str, device: str) -> None:
        try:
            settings, shape, _ = resolve_settings(given, PRESETS[preset])
            measurement = Measurement(settings, shape, device)
            self.app.call_later(self._measuring, number, measurement)
            line = rate_line(measurement.take(), settings, shape)
        except UserError as error:
            line = str(error)
        deliver(self, self._measured, number, line)

    def _measuring(self, number: int, measurement: Measurement) -> None:
        if number == self._asked and is_live(self):
            self._measurement = measurement
        else:
            measurement.cancel()

    def _measured(self, number: int, line: str) -> None:
        if number == self._asked:
            self._measurement = None
            self._tell(line)

    def _tell(self, line: str) -> None:
        self.query_one("#estimate", Static).update(Content(visible(line)))
