"""The new-run form's estimates: the cost of a run, and its duration with a band, from beginning it."""

from __future__ import annotations

import functools
from collections.abc import Callable

from textual.widget import Widget
from textual.widgets import Static

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import memory_size
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import budget, run_time
from tui_llm.training.plan.budget import Plan, start_preset
from tui_llm.training.plan.budget_measurement import BudgetMeasurement
from tui_llm.training.plan.cost import cost
from tui_llm.training.plan.fields import resolve_settings
from tui_llm.training.plan.run_time import RunTimeMeasurement
from tui_llm.training.run import pins
from tui_llm.training.run.promises import promise
from tui_llm.training.run.settings import BUDGET, PRESETS, PRETRAINING, TrainingSettings
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.live import deliver, is_live
from tui_llm.tui.kit.static_text import set_text


def cost_line(settings: TrainingSettings, shape: GPTConfig) -> str:
    found = cost(settings, shape)
    return (
        f"{fmt.parameters(found.parameters)} parameters · about {memory_size(found.memory_bytes)} of tensors · "
        f"{found.most}{fmt.parameters(found.tokens)} tokens · {found.most}{found.flops:.1e} FLOPs"
    )


class EstimateLines(Static):
    """The lines of an estimate. `changed` is called when they have become more or fewer."""

    def __init__(self, changed: Callable[[], object]) -> None:
        super().__init__(id="estimate")
        self._size_changed = changed

    def on_resize(self) -> None:
        self._size_changed()


Fields = tuple[dict[str, str], str, str, list[str]]
"""The changed fields, the preset, the device and the corpora."""


def plan_run(fields: Fields, owner: Callable[[BudgetMeasurement], object]) -> Plan | None:
    """Measures the machine for a run with a time budget; None for a run without one. `owner` gets the process, to cancel it.
    Raises `UserError`."""
    given, preset, device, corpora = fields
    settings, shape, found = resolve_settings(given, start_preset(preset, given), corpora)
    if not settings.minutes:
        return None
    pick = preset == BUDGET and found is None
    return budget.plan(
        settings, shape, corpora, device, pick=pick, schedule=preset == BUDGET, own_tokenizer="tokenizer" in given, owner=owner
    )  # fmt: skip


class RunEstimate:
    """The parts of the form that show what a run will cost. `ready` shows the first wrong field and returns False, or
    returns True; `fields` returns the changed fields, the preset, the device and the
    corpora; `changed` is called when the lines have become more or fewer."""

    def __init__(
        self, form: Widget, ready: Callable[[], bool], fields: Callable[[], Fields], changed: Callable[[], object]
    ) -> None:
        self.form, self.ready, self.fields = form, ready, fields
        self.cost, self.time = Static(id="cost"), EstimateLines(changed)
        self.promise = Static(id="promise")
        self.measurement: RunTimeMeasurement | BudgetMeasurement | None = None
        self.planned: tuple[Fields, Plan] | None = None  # the fields of the newest plan of a time budget, and the plan
        self._measuring_now = False  # from the key on, also before there is a process
        self._measurements_started = 0  # number of measurements started; the result of any but the newest is dropped

    def show_cost(self, settled: tuple[TrainingSettings, GPTConfig] | None, *, picked_later: bool = False) -> None:
        """Shows the cost, or why it is not known. With `picked_later`, a time budget picks the model: it is the cost of the newest
        plan's for these fields, if there is one."""
        plan = self.plan_of(self.fields()) if picked_later else None
        if plan is not None:  # a check of the fields can end after the plan
            settled, picked_later = (plan.settings, plan.picked.shape), False
        words = cost_line(*settled) if settled else "the cost is shown once all fields are valid"
        if settled and picked_later:
            words = "the cost is that of the model that is picked: ctrl+e picks it"
        set_text(self.cost, words)

    def forget(self) -> None:
        """Cancels a running measurement, as its settings have changed."""
        self.stop()
        self._show("ctrl+e begins the run for some seconds to estimate its time")

    def show_promise(self, preset: str, objective: str) -> None:
        """Says what text to expect of a run of that preset."""
        self._expect(promise(preset) if objective == PRETRAINING else "")

    def _expect(self, text: str) -> None:
        set_text(self.promise, f"to expect: {text}" if text else "")

    def plan_of(self, fields: Fields) -> Plan | None:
        """The plan that was measured for these fields."""
        return self.planned[1] if self.planned is not None and self.planned[0] == fields else None

    def own(self, measurement: BudgetMeasurement) -> None:
        """Takes a measurement that a start made, to cancel it when the form closes. Called on the start's thread."""
        self.measurement = measurement

    def say(self, line: str) -> None:
        """Shows `line` in the place of the time."""
        self._show(line)

    def stop(self) -> None:
        self._measurements_started += 1
        self._measuring_now = False
        measurement, self.measurement = self.measurement, None
        if measurement is not None:
            measurement.cancel()

    def toggle(self) -> None:
        """Measures a few steps, or cancels that."""
        if self.measurement is not None or self._measuring_now:
            self.forget()
            return
        if not self.ready():
            return
        self._measurements_started += 1
        self._measuring_now = True
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

        plan: Plan | None = None
        fields = given, preset, device, corpora
        try:
            plan = plan_run(fields, lambda process: call_later(self._measuring, number, process))
            if plan is None:
                settings, _, model = resolve_settings(given, PRESETS[preset], corpora)
                folder = model.folder if model else None
                measurement = RunTimeMeasurement(settings, corpora, device, folder, pins.of_user())
                call_later(self._measuring, number, measurement)
                line = "\n".join(run_time.lines(measurement.take(say), settings.batch_size))
            else:
                line = budget.summary(plan)
        except UserError as error:
            line = str(error)
        deliver(self.form, self._measured, number, line, plan and (fields, plan))

    def _measuring(self, number: int, measurement: RunTimeMeasurement | BudgetMeasurement) -> None:
        if number == self._measurements_started and is_live(self.form):
            self.measurement = measurement
        else:
            measurement.cancel()

    def _doing(self, number: int, doing: str) -> None:
        if number == self._measurements_started:
            self._show(f"{doing} (ctrl+e stops) …")

    def _measured(self, number: int, line: str, planned: tuple[Fields, Plan] | None = None) -> None:
        if number == self._measurements_started:
            self.measurement, self.planned, self._measuring_now = None, planned, False
            if planned is not None:
                self.show_cost((planned[1].settings, planned[1].picked.shape))
                self._expect(budget.text_of(planned[1], planned[0][1]))
            self._show(line)

    def _show(self, line: str) -> None:
        set_text(self.time, visible(line, newlines=True))
