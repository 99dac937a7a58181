"""Training runs: train, control, stop, export."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_llm.commands.output import out_path, put, put_json
from tui_llm.commands.streams import complain
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.new_files import check_folder, write_folder
from tui_llm.common.paths import expand
from tui_llm.facts import report

if TYPE_CHECKING:
    from tui_llm.llm.model.shape import GPTConfig
    from tui_llm.training.plan.timing import Rate
    from tui_llm.training.run.pins import Pin
    from tui_llm.training.run.run import Run
    from tui_llm.training.run.settings import TrainingSettings


def train(options: argparse.Namespace) -> int:
    from tui_llm.training.plan import launch
    from tui_llm.training.plan.follow import follow
    from tui_llm.training.run import pins
    from tui_llm.training.run.run import find
    from tui_llm.training.run.settings import TrainingSettings, from_fields

    if options.instruct:
        from tui_llm.commands.instruct import instruct

        return instruct(options)
    names = [field.name for field in dataclasses.fields(TrainingSettings)]
    given = {name: getattr(options, name) for name in names if getattr(options, name, None) is not None}
    if options.measure:
        options.cost = True
    if options.cost and not options.resume:
        _show_cost(*_settings(options, given)[1:], options)
        return 0
    if options.run is None:
        raise UserError("name the run: --run NAME")
    pinned = list(map(pins.parse, options.pin or ()))
    if options.tensorboard:
        from tui_llm.training.plan import extras

        extras.check_tensorboard()
    if options.resume:
        run = find(options.run)
        if options.cost:
            settings = from_fields(given, run.config().settings)
            _show_cost(settings, _shape(settings, run), options)
            return 0
        _prepare_resume(run, options, given)
        pins.change(run.pins_path, pinned)
        if options.tensorboard and not run.config().tensorboard:
            launch.write_tensorboard(run)
    else:
        run = _new_run(options, given, pinned)
    if options.no_start:
        put_json({"run": run.name, "path": str(run.path)}) if options.json else put(str(run.path))
        return 0
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


def _settings(options: argparse.Namespace, given: dict[str, Any]) -> tuple[str, TrainingSettings, GPTConfig]:
    """The preset's name, what a new run is asked to do, its model's shape."""
    from tui_llm.training.plan.fields import settle
    from tui_llm.training.run.settings import preset

    name = options.preset or "small"
    settings, shape, found = settle(given, preset(name))
    if found:
        from tui_llm.llm.tokens.tokenizer import load_folder

        load_folder(found.folder)  # one that can't be opened is told now, not in the worker's log
    return name, settings, shape


def _shape(settings: TrainingSettings, run: Run | None = None) -> GPTConfig:
    """The shape of the model of a run with these settings; of `run` itself where that has begun from a model."""
    from tui_llm.llm.hub.lookup import vocabulary_size
    from tui_llm.training.plan import cost, start

    if run and settings.from_model:
        from tui_llm.llm.model.model_config import read_config

        return read_config(run.path / start.FOLDER)
    return cost.shape(settings, vocabulary_size(settings.tokenizer))


def _new_run(options: argparse.Namespace, given: dict[str, Any], pinned: list[Pin]) -> Run:
    from tui_llm.llm.hub import hub, lookup
    from tui_llm.training.plan import launch
    from tui_llm.training.plan.cost import cost

    name, settings, shape = _settings(options, given)
    if options.shard and options.nproc in (None, 1) and not options.no_start:
        raise UserError("--shard cuts the model up between processes; say how many: --nproc N")
    if not settings.from_model:
        hub.training_tokenizer(settings.tokenizer)  # one that can't be opened is told now, not in the worker's log
    model = lookup.find(settings.from_model).folder if settings.from_model else None
    run = launch.create(
        options.run,
        options.corpus,
        settings,
        preset=name,
        device=options.device or "auto",
        model=model,
        pinned=pinned,
        tensorboard=options.tensorboard,
        nproc=1 if options.nproc is None else options.nproc,
        shard=bool(options.shard),
    )
    if not options.json and not options.no_start:
        found = cost(settings, shape)
        put(
            f"{found.parameters:,} parameters, {found.tokens:,} tokens, {found.flops:.2e} operations, about "
            f"{_bytes(found.memory_bytes)} of memory"
        )
    return run


def _show_cost(settings: TrainingSettings, shape: GPTConfig, options: argparse.Namespace) -> None:
    from tui_llm.training.plan.cost import cost

    found = cost(settings, shape)
    rate = _measure(settings, shape, options) if options.measure else None
    seconds = rate.seconds(found.tokens) if rate else None
    if options.json:
        measured = {"measured": {**dataclasses.asdict(rate), "seconds": seconds}} if rate else {}
        put_json({**dataclasses.asdict(found), "memory_bytes": found.memory_bytes, **measured})
        return
    rows = [
        ("parameters", f"{found.parameters:,}", f"vocabulary {shape.vocabulary:,}"),
        ("memory", _bytes(found.memory_bytes), f"{_bytes(found.state_bytes)} weights, gradients and optimiser, about "
         f"{_bytes(found.activation_bytes)} activations, in float32"),
        ("tokens", f"{found.tokens:,}", f"{settings.steps:,} steps of {found.step_tokens:,}"),
        ("operations", f"{found.flops:.2e}", "floating-point, 6 · N a token and the attention"),
    ]  # fmt: skip
    if rate and seconds is not None:
        from tui_llm.training.plan.follow import duration

        fewer = f", with {rate.rows} rows at once" if rate.rows < settings.batch_size else ""
        rows.append(("speed", f"{rate.tokens_per_second:,.0f}", f"tokens/s on {rate.device}, in {rate.steps} measured steps{fewer}"))  # fmt: skip
        rows.append(("time", duration(seconds), "for all steps; evaluations and checkpoints come on top"))
    put(report.table(("cost", "", ""), rows, left=(0, 2)))


def _measure(settings: TrainingSettings, shape: GPTConfig, options: argparse.Namespace) -> Rate:
    """A few real steps, in a process that is gone afterwards, Ctrl+C included."""
    from tui_llm.training.plan.timing import Measurement

    measurement = Measurement(settings, shape, options.device or "auto")
    try:
        return measurement.take()
    finally:
        measurement.cancel()


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _prepare_resume(run: Run, options: argparse.Namespace, given: dict[str, Any]) -> None:
    """A resumed run goes on as it began: what is said again must be the same. Only the steps may become more, the same
    step may be made in smaller batches, and it may be compiled or not."""
    from tui_llm.llm.data import corpora
    from tui_llm.training.plan import launch
    from tui_llm.training.run.settings import from_fields

    config = run.config()
    if "from_model" in given and expand(given["from_model"]).resolve() == Path(config.settings.from_model):
        given = {**given, "from_model": config.settings.from_model}  # the same folder, said otherwise
    asked = from_fields(given, config.settings)
    rows = config.settings.batch_size * config.settings.accumulation
    if "batch_size" in given and "accumulation" not in given and rows % asked.batch_size == 0:
        asked = dataclasses.replace(asked, accumulation=rows // asked.batch_size)
    free = ("steps", "batch_size", "accumulation", "compile")
    changed = [n for n in given if n not in free and getattr(asked, n) != getattr(config.settings, n)]
    if asked.steps < config.settings.steps:
        changed.append("steps (fewer; `tui-llm stop` ends a run early)")
    if changed:
        names = ", ".join(n.removesuffix("_model").replace("_", "-") for n in changed)
        raise UserError(f"run {run.name} was begun with another {names}; resume it without, or start a new run")
    if options.corpus and tuple(map(corpora.place, options.corpus)) != config.corpus:
        raise UserError(f"run {run.name} was begun on another corpus; resume it without naming one, or start a new run")
    launch.refit(run, asked.batch_size, asked.accumulation)
    if asked.compile != config.settings.compile:
        launch.change_compile(run, asked.compile)
    launch.use(run, nproc=options.nproc, shard=options.shard)
    if asked.steps > config.settings.steps:
        launch.extend(run, asked.steps)
        if not options.json:
            put(f"{asked.steps:,} steps instead of {config.settings.steps:,}: the learning rate of what is left follows the "
                "schedule of the new number")  # fmt: skip


def control(options: argparse.Namespace) -> None:
    from tui_llm.training.plan import launch
    from tui_llm.training.run import changes, pins
    from tui_llm.training.run.run import find

    run, asked = find(options.run), []
    pinning = options.pin or options.unpin
    if not (options.save or options.pause or options.go_on or pinning or options.learning_rate is not None):
        raise UserError("say what to ask of the run: --save, --learning-rate R, --pin P, --unpin P, --pause or --go-on")
    if pinning:
        before, new = pins.read(run.pins_path), list(map(pins.parse, options.pin or ()))
        old = [pin for words in options.unpin or () for pin in pins.meant(words, before)]
        pins.change(run.pins_path, new, old)
        asked += [f"{'pin' if pin in new else 'unpin'} {pins.said(pin)!r}" for pin in (*new, *old)]
    if options.learning_rate is not None:
        peak = changes.parse_learning_rate(options.learning_rate)
        launch.change_learning_rate(run, peak)
        asked.append(f"learning rate {peak:g} at most from the next step on")
    if options.save:
        launch.save(run)
        asked.append("save")
    if options.pause or options.go_on:
        (launch.pause if options.pause else launch.unpause)(run)
        asked.append("pause" if options.pause else "go on")
    if options.json:
        put_json({"run": run.name, "asked": asked, "alive": run.alive()})
    else:
        put(visible(f"asked of run {run.name}: {', '.join(asked)}"))


def stop(options: argparse.Namespace) -> int:
    from tui_llm.training.plan import launch
    from tui_llm.training.run.run import find

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
    from tui_llm.training.run.run import find
    from tui_llm.training.worker.export import export as write

    run = find(options.run)
    folder = out_path(options.folder, "FOLDER")
    if options.tensorboard:
        _export_events(run, folder, options)
        return
    step = write(run, folder, options.dtype, damaged=lambda line: complain(visible(line)), force=options.force)
    if options.json:
        put_json({"run": run.name, "path": str(folder), "step": step, "dtype": options.dtype})
        return
    put(f"run {run.name} at step {step:,} is now the model folder {visible(str(folder))} ({options.dtype})")


def _export_events(run: Run, folder: Path, options: argparse.Namespace) -> None:
    from tui_llm.training.plan import extras
    from tui_llm.training.worker import tensorboard

    extras.check_tensorboard()
    if run.last_metric() is None:
        raise UserError(f"run {run.name} has no metrics yet; wait for its first step")
    if any(folder.glob("events.out.tfevents.*")):  # TensorBoard would show both as one run
        raise UserError(f"there are event files in {folder} already; give another name")
    check_folder(folder, force=options.force, inputs=(run.path,))
    counts: list[int] = []
    write_folder(
        folder, lambda part: counts.append(tensorboard.export(run.metrics_path, part)), last="", force=options.force
    )
    (count,) = counts
    if options.json:
        put_json({"run": run.name, "path": str(folder), "logged_steps": count})
        return
    put(f"{count:,} steps of run {run.name} are now event files in {visible(str(folder))}: tensorboard --logdir FOLDER")
