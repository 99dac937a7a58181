"""The new-run form's estimates: the cost of a run, and its duration with a band, from beginning it."""

from __future__ import annotations

import functools
from collections.abc import Callable

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import memory_size
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import run_time
from tui_llm.training.plan.cost import cost
from tui_llm.training.plan.fields import resolve_settings
from tui_llm.training.plan.run_time import RunTimeMeasurement
from tui_llm.training.run import pins
from tui_llm.training.run.settings import PRESETS, TrainingSettings
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.live import deliver, is_live


def cost_line(settings: TrainingSettings, shape: GPTConfig) -> str:
    found = cost(settings, shape)
    return (
        f"{fmt.parameters(found.parameters)} parameters · about {memory_size(found.memory_bytes)} · "
        f"{found.most}{fmt.parameters(found.tokens)} tokens · {found.most}{found.flops:.1e} FLOPs"
    )


class EstimateLines(Static):
    """The lines of an estimate. `changed` is called when they have become more or fewer."""

    def __init__(self, changed: Callable[[], object]) -> None:
        super().__init__(id="estimate")
        self._size_changed = changed

    def on_resize(self) -> None:
        self._size_changed()


class RunEstimate:
    """The parts of the form that show what a run will cost. `ready` shows the first wrong field and returns False, or
    returns True; `fields` returns the changed fields, the preset, the device and the
    corpora; `changed` is called when the lines have become more or fewer."""

    def __init__(
        self,
        form: Widget,
        ready: Callable[[], bool],
        fields: Callable[[], tuple[dict[str, str], str, str, list[str]]],
        changed: Callable[[], object],
    ) -> None:
        self.form, self.ready, self.fields = form, ready, fields
        self.cost, self.time = Static(id="cost"), EstimateLines(changed)
        self.measurement: RunTimeMeasurement | None = None
        self._measurements_started = 0  # number of measurements started; the result of any but the newest is dropped

    def show_cost(self, settled: tuple[TrainingSettings, GPTConfig] | None) -> None:
        self.cost.update(Content(cost_line(*settled) if settled else "the cost is shown once all fields are valid"))

    def forget(self) -> None:
        """Cancels a running measurement, as its settings have changed."""
        self.stop()
        self._show("ctrl+e begins the run for some seconds to estimate its time")

    def stop(self) -> None:
        self._measurements_started += 1
        measurement, self.measurement = self.measurement, None
        if measurement is not None:
            measurement.cancel()

    def toggle(self) -> None:
        """Measures a few steps, or cancels that."""
        if self.measurement is not None:
            self.forget()
            return
        if not self.ready():
            return
        self._measurements_started += 1
        self._show("beginning the run to measure it, about 20 s (ctrl+e stops) …")
        # The app's: a thread of a closed form can't find it any more.
        work = functools.partial(self._measure, self._measurements_started, *self.fields(), self.form.app.call_later)
        self.form.run_worker(work, name="measure", group="estimate", thread=True)

    def _measure(
        self,
        number: int,
        given: dict[str, str],
        preset: str,
        device: str,
        corpora: list[str],
        call_later: Callable[..., object],
    ) -> None:
        def say(doing: str) -> None:
            deliver(self.form, self._doing, number, doing)

        try:
            settings, _, model = resolve_settings(given, PRESETS[preset], corpora)
            folder = model.folder if model else None
            measurement = RunTimeMeasurement(settings, corpora, device, folder, pins.of_user())
            call_later(self._measuring, number, measurement)
            line = "\n".join(run_time.lines(measurement.take(say), settings.batch_size))
        except UserError as error:
            line = str(error)
        deliver(self.form, self._measured, number, line)

    def _measuring(self, number: int, measurement: RunTimeMeasurement) -> None:
        if number == self._measurements_started and is_live(self.form):
            self.measurement = measurement
        else:
            measurement.cancel()

    def _doing(self, number: int, doing: str) -> None:
        if number == self._measurements_started:
            self._show(f"{doing} (ctrl+e stops) …")

    def _measured(self, number: int, line: str) -> None:
        if number == self._measurements_started:
            self.measurement = None
            self._show(line)

    def _show(self, line: str) -> None:
        self.time.update(Content(visible(line, newlines=True)))
