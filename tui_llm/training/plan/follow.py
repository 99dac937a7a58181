"""Follow a run on the command line: print progress lines until the worker ends. Does not import torch."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.files import to_json
from tui_llm.common.numbers import duration, memory_size
from tui_llm.training.plan import launch
from tui_llm.training.run import gauges, health
from tui_llm.training.run.alarm_kinds import OUTLIER_ROW, SPIKE, Alarm
from tui_llm.training.run.metrics import Metric, MetricsTail, metric_line
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRETRAINING, TrainingSettings
from tui_llm.training.run.snapshot import RECENT, flops_per_token, last_metrics, seconds_left, speed

_EVERY = 2.0  # seconds between human-readable lines


def follow(run: Run, *, as_json: bool = False, quiet: bool = False) -> int:
    """Prints the progress of a run that was just started, until it ends; with `quiet`, only how it failed.

    Returns 0 if it finished or was stopped, 1 if it failed, 2 if it failed before its first step (the configuration
    can't work), and 130 after a second Ctrl+C. The first Ctrl+C asks the worker to save and exit, the second
    detaches from it, as does closing the terminal.
    """
    presses = 0

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        # Don't raise on the first press: lines that were read but not yet printed would be lost.
        nonlocal presses
        presses += 1
        if presses > 1:
            raise KeyboardInterrupt

    follower, hinted = _Follower(run, as_json, quiet), False
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        while not follower.poll():
            if presses and not hinted:
                hinted = True
                print("saving, then stopping … (Ctrl+C again: leave it running)", file=sys.stderr)
                with suppress(UserError):  # it has ended: the next `poll` reports how
                    launch.stop(run)
        return follower.end()
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, before)


class _Follower:
    def __init__(self, run: Run, as_json: bool, quiet: bool) -> None:
        self.run, self.as_json, self.quiet = run, as_json, quiet
        self.tail = MetricsTail(run.metrics_path)
        self.tail.skip()
        self.alarms = health.tail(run)
        self.alarms.skip()
        self.said = {
            one.key for one in health.recorded(run)
        }  # an alarm on rows is written again when more rows are found
        # A resumed worker truncates the file to its checkpoint: lines up to that step are not new.
        self.resumed_from = max((step for step, _ in run.checkpoints()), default=0)
        kept = (metric for metric in last_metrics(run) if metric.step <= self.resumed_from)
        self.recent: deque[Metric] = deque(kept, maxlen=RECENT)
        self.shown = ""
        self.last_line = 0.0

    def poll(self) -> bool:
        """Prints what is new, then sleeps for 0.1 s. Returns True once the run has ended."""
        launch.reap()
        alive = self.run.alive()  # checked before reading the file, so that the last lines are not missed
        for metric in self.tail.new():
            self.recent.append(metric)
            if metric.step > self.resumed_from:
                self._print(metric)
        for alarm in self.alarms.new():
            new, self.said = alarm.key not in self.said, self.said | {alarm.key}
            if new and alarm.step > self.resumed_from and not self.as_json and not self.quiet:
                print(alarm_line(self.run, alarm), flush=True)
        status = self.run.status()
        if not alive and status.state not in ("starting", "running", "paused"):
            # On a busy machine a worker may still be importing after the grace period in which it counts as starting.
            return not (status.state == "died" and launch.started_here(self.run))
        if not self.as_json and not self.quiet and status.message and status.message != self.shown:
            self.shown = status.message
            print(f"{status.state}: {visible(self.shown)}", flush=True)
        time.sleep(0.1)
        return False

    def _print(self, metric: Metric) -> None:
        if self.quiet:
            return
        if self.as_json:
            print(to_json({k: v for k, v in metric_line(metric).items() if v is not None}), flush=True)
        elif metric.val_loss is not None or time.monotonic() - self.last_line > _EVERY:
            self.last_line = time.monotonic()
            print(progress(self.run, metric, self.recent), flush=True)

    def end(self) -> int:
        run, status = self.run, self.run.status()
        if status.state in ("failed", "died"):
            print(f"tui-llm: run {run.name} {status.state}: {visible(status.message)}", file=sys.stderr)
            return 1 if status.step else 2
        if self.quiet:
            return 0
        if self.as_json:
            print(to_json({"run": run.name, "state": status.state, "step": status.step}), flush=True)
        else:
            print(f"{status.state}: {visible(status.message)}", flush=True)
        return 0


def alarm_line(run: Run, alarm: Alarm) -> str:
    """An alarm in one line, and for one about a step's rows the command that shows them."""
    of_rows = alarm.kind in (SPIKE, OUTLIER_ROW)
    more = f"; its rows: tui-llm replay {visible(run.name)} --step {alarm.step}" if of_rows else ""
    return f"! {alarm.kind} at step {alarm.step:,}: {visible(alarm.evidence)}{more}"


def progress(run: Run, metric: Metric, recent: Sequence[Metric] = ()) -> str:
    """Formats one progress line: step, losses, learning rate, speed and remaining time.

    Speed, MFU and remaining time are over the `recent` steps, of which `metric` is the last, as in the Training pane. The remaining
    time of a first step is estimated from its own, if each step has as many tokens as it.
    """
    recent = recent or [metric]
    rate, left = speed(recent), seconds_left(recent, steps := run.status().steps)
    settings = run.config().settings
    if left is None and rate is not None and settings.objective == PRETRAINING:
        tokens = settings.batch_size * settings.block_size * settings.grad_accumulation_steps
        left = max(0, steps - metric.step) * tokens / rate
    share = gauges.mfu(run.facts(), rate, flops_per_token(recent))
    used = "" if share is None else f"  MFU {100 * share:.1f} %"
    used += "" if metric.memory_bytes is None else f"  memory {memory_size(metric.memory_bytes)}"
    used += "" if left is None else f"  {duration(left)} left"
    return (
        f"step {metric.step:,}/{steps:,}  {_measured(metric, settings)}  lr {metric.lr:.2e}  "
        f"gradient {metric.grad_norm:.2f}  {'–' if rate is None else f'{rate:,.0f}'} tokens/s{used}"
    )


def _measured(metric: Metric, settings: TrainingSettings) -> str:
    """The losses, or what a run that learns from answers measures in their place. `held out (EMA)` is the loss of the weights'
    average, as in the Training pane."""
    if metric.reward is not None:
        held_out = "" if metric.val_reward is None else f"  evaluation {metric.val_reward:.3f}"
        equal = "  (all rewards equal: no step)" if metric.reward_std == 0 else ""
        return f"reward {metric.reward:.3f}{held_out}{equal}  KL {metric.kl or 0.0:.4f}"
    held_out = (
        "" if metric.val_loss is None else f"  held out{' (EMA)' * bool(settings.ema_decay)} {metric.val_loss:.4f}"
    )
    text = f"loss {metric.loss:.4f}{held_out}"
    if metric.margin is not None:
        text += f"  margin {metric.margin:.3f}  agreement {100 * (metric.agreement or 0.0):.0f} %"
        if metric.val_agreement is not None:
            text += f" (held out {100 * metric.val_agreement:.0f} %)"
    return text if metric.val_kl is None else f"{text}  KL {metric.val_kl:.4f}"
