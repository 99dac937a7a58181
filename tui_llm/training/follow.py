"""Following a run on the command line: a line every so often, until its worker leaves. No torch here."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from tui_llm.display import visible
from tui_llm.training import launch
from tui_llm.training.run import Metric, MetricsTail, Run

_EVERY = 2.0  # seconds between lines for people


def follow(run: Run, *, as_json: bool = False) -> int:
    """Prints the run's progress until it ends; 0 where it finished or was stopped, 1 where it failed.

    Ctrl+C asks the worker to save and leave. A hung-up terminal leaves it running.
    """
    tail = MetricsTail(run.metrics_path)
    tail.skip()
    last_line, said, held = 0.0, "", launch.wait_until_held(run)
    while True:
        try:
            alive = run.alive()  # looked at before the file, so that the last lines are not missed
            for metric in tail.new():
                if as_json:
                    print(json.dumps({k: v for k, v in asdict(metric).items() if v is not None}), flush=True)
                elif metric.val_loss is not None or time.monotonic() - last_line > _EVERY:
                    last_line = time.monotonic()
                    print(progress(run, metric), flush=True)
            status = run.status()
            if not as_json and status.message and status.message != said:
                said = status.message
                print(f"{status.state}: {visible(said)}", flush=True)
            if not alive and status.state != "starting":
                return _end(run, as_json)
            time.sleep(0.1)
        except KeyboardInterrupt:
            if not held or not run.alive():
                return 130
            print("saving, then stopping …", file=sys.stderr)
            launch.stop(run)
            held = False  # a second Ctrl+C leaves at once


def _end(run: Run, as_json: bool) -> int:
    status = run.status()
    if status.state in ("failed", "died"):
        print(f"tui-llm: run {run.name} {status.state}: {visible(status.message)}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps({"run": run.name, "state": status.state, "step": status.step}), flush=True)
    return 0


def progress(run: Run, metric: Metric) -> str:
    """One line: where the run is, how well it does, how long it will take."""
    steps = run.status().steps
    settings = run.config().settings
    tokens = settings.batch_size * settings.block_size * settings.accumulation
    left = (steps - metric.step) * tokens / max(metric.tokens_per_second, 1e-9)
    held_out = "" if metric.val_loss is None else f"  held out {metric.val_loss:.4f}"
    return (
        f"step {metric.step:,}/{steps:,}  loss {metric.loss:.4f}{held_out}  lr {metric.lr:.2e}  "
        f"gradient {metric.grad_norm:.2f}  {metric.tokens_per_second:,.0f} tokens/s  {duration(left)} left"
    )


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s, 5 h 7 min."""
    whole = round(max(0.0, min(seconds, 1e9)))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
