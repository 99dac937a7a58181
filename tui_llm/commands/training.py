"""Training runs: train, runs, stop, export."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_llm import report
from tui_llm.commands.output import put, put_json
from tui_llm.display import visible
from tui_llm.errors import UserError

if TYPE_CHECKING:
    from tui_llm.training.run import Run


def train(options: argparse.Namespace) -> int:
    from tui_llm.training import launch
    from tui_llm.training.follow import follow
    from tui_llm.training.presets import TrainingSettings
    from tui_llm.training.run import find

    names = [field.name for field in dataclasses.fields(TrainingSettings)]
    given = {name: getattr(options, name) for name in names if getattr(options, name, None) is not None}
    if options.resume:
        run = find(options.run)
        _check_resume(run, options, given)
    else:
        run = _new_run(options, given)
    launch.start(run)
    if options.detach:
        held = launch.wait_until_held(run)
        status = run.status()
        if status.state == "failed":
            raise UserError(f"run {run.name} failed: {status.message}")
        if options.json:
            put_json({"run": run.name, "path": str(run.path), "state": status.state, "alive": held})
        else:
            put(f"run {run.name} goes on by itself: `tui-llm runs` shows it, `tui-llm stop {run.name}` stops it")
        return 0
    return follow(run, as_json=options.json)


def _new_run(options: argparse.Namespace, given: dict[str, Any]) -> Run:
    from tui_llm.llm.hub import training_tokenizer
    from tui_llm.training import launch
    from tui_llm.training.presets import from_fields, preset

    name = options.preset or "small"
    base = preset(name)
    if "steps" in given and "learning_rate" not in given:
        # A shorter run needs its warm-up and its evaluations within reach.
        steps = from_fields({"steps": given["steps"]}).steps
        base = dataclasses.replace(base, warmup_steps=min(base.warmup_steps, max(1, steps // 10)))
    settings = from_fields(given, base)
    training_tokenizer(settings.tokenizer)  # a name that can't be opened is told now, not in the worker's log
    return launch.create(options.run, options.corpus, settings, preset=name, device=options.device or "auto")


def _check_resume(run: Run, options: argparse.Namespace, given: dict[str, Any]) -> None:
    """A resumed run goes on as it began: what is said again must be the same."""
    from tui_llm.llm import corpora
    from tui_llm.training.presets import from_fields

    config = run.config()
    if from_fields(given, config.settings) != config.settings:
        changed = ", ".join(
            n.replace("_", "-") for n in given if from_fields({n: given[n]}, config.settings) != config.settings
        )
        raise UserError(f"run {run.name} was begun with another {changed}; resume it without, or start a new run")
    if options.corpus and tuple(map(corpora.place, options.corpus)) != config.corpus:
        raise UserError(f"run {run.name} was begun on another corpus; resume it without naming one, or start a new run")


def runs(options: argparse.Namespace) -> None:
    from tui_llm import paths
    from tui_llm.training.run import runs as every

    rows: list[dict[str, Any]] = []
    for run in every():
        status, last = run.status(), run.last_metric()
        rows.append(
            {"name": run.name, "state": status.state, "step": status.step, "steps": status.steps,
             "loss": last.loss if last else None, "tokens_per_second": last.tokens_per_second if last else None,
             "message": status.message, "path": str(run.path)}
        )  # fmt: skip
    if options.json:
        put_json({"runs": rows})
        return
    if not rows:
        put(f"no runs in {paths.runs_dir()} yet; start one: tui-llm train TEXT.txt --run NAME")
        return
    cells = [
        (visible(r["name"]), r["state"], f"{r['step']:,} / {r['steps']:,}",
         "–" if r["loss"] is None else f"{r['loss']:.4f}", visible(r["message"]))
        for r in rows
    ]  # fmt: skip
    put(report.table(("run", "state", "step", "loss (nats)", ""), cells, left=(0, 1, 4)))


def stop(options: argparse.Namespace) -> int:
    from tui_llm.training import launch
    from tui_llm.training.run import find

    run = find(options.run)
    launch.stop(run)
    gone = launch.wait_until_gone(run)
    status = run.status()
    if options.json:
        put_json({"run": run.name, "state": status.state, "step": status.step, "message": status.message})
    else:
        put(f"run {run.name}: {status.state}, {visible(status.message)}" if gone else f"run {run.name} is still saving")
    return 0


def export(options: argparse.Namespace) -> None:
    import torch

    from tui_llm.llm import checkpoint, hub, tokenizer
    from tui_llm.training.run import find

    run = find(options.run)
    newest = hub.newest_checkpoint(run.path)
    if newest is None:
        raise UserError(f"run {run.name} has no checkpoint yet; wait for its first one")
    step, source = newest
    folder = Path(options.folder).expanduser()
    vocabulary = tokenizer.load_folder(source, run.name)
    checkpoint.save(
        checkpoint.load(source),
        folder,
        end_of_text=vocabulary.end_of_text,
        dtype=getattr(torch, options.dtype),
    )
    tokenizer.save_folder(vocabulary, folder)
    put(f"run {run.name} at step {step:,} is now the model folder {visible(str(folder))} ({options.dtype})")
