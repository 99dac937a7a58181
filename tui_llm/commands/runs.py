"""`tui-llm runs`: list, rename, delete and compare the training runs on this machine."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser, actions_of
from tui_llm.commands.shared.options import (
    PIN,
    action_json_option,
    device_option,
    force_option,
    json_option,
    run_argument,
)
from tui_llm.commands.shared.output import put, put_json, put_sentences
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.training.run.health import Health
    from tui_llm.training.run.metrics import Metric
    from tui_llm.training.run.run import Run

LOG = "a log of nanoGPT, nanochat, TensorBoard, wandb or transformers' Trainer (a file, or a folder that contains it)"


def add(commands: Commands) -> None:
    commands.add(
        "runs",
        "list the training runs on this machine; rename, delete or compare them",
        list_runs,
        _add_options,
        more="Without an action prints one row per run: state, steps, loss, the newest alarm (--json: all, with evidence and advice). `tui-llm runs ACTION --help` describes each action.",
        examples=("tui-llm runs", "tui-llm runs compare first second", "tui-llm runs rename first best"),
    )


def _add_options(parser: Parser) -> None:
    json_option(parser)
    actions = actions_of(parser)
    action = actions.add(
        "rename",
        "give a run without a live worker another name",
        rename,
        more="Renames the run's folder. The run must not be training.",
        examples=("tui-llm runs rename first best",),
    )
    action.add_argument("old", metavar="OLD", help="the run's current name")
    action.add_argument("new", metavar="NEW", help="its new name")
    action_json_option(action)
    action = actions.add(
        "delete",
        "delete a run and its checkpoints; asks first",
        delete,
        more="Asks on the terminal unless --yes is given. The run must not be training.",
        examples=("tui-llm runs delete first", "tui-llm runs delete first --yes"),
    )
    run_argument(action)
    action.add_argument("--yes", action="store_true", help="don't ask")
    action_json_option(action)
    action = actions.add(
        "compare",
        "compare runs: the settings that differ, and the results",
        compare,
        more="Prints the settings in which the runs differ, and the last losses of each.",
        examples=("tui-llm runs compare first second", "tui-llm runs compare first ../nanoGPT/out.log"),
    )
    run_argument(action, nargs="+", foreign=LOG)
    action_json_option(action)
    action = actions.add(
        "curves",
        "the curves of runs: newest values, or a chart as SVG, PNG or CSV",
        curves,
        more="Without --chart lists the charts of a run and their newest values. With --chart NAME prints its points, or writes it to the "
        "file that --out names, which ends in .svg, .png or .csv. Several runs are drawn over each other; of a chart with a line a layer, the layers "
        "are then joined: gradient norms as the root of the sum of squares, the others as their mean.",
        examples=(
            "tui-llm runs curves first",
            "tui-llm runs curves first --chart update.q --out update.svg",
            "tui-llm runs curves first second --chart loss --by time --log-y --out loss.csv",
            "tui-llm runs curves first ../nanoGPT/out.log --chart loss",
        ),
    )
    run_argument(action, nargs="+", foreign=LOG)
    action.add_argument("--chart", metavar="NAME", help="loss, val_loss, grad_norm, gradient, activation, update.q …, as the list without --chart names them")  # fmt: skip
    action.add_argument("--by", default="step", choices=("step", "tokens", "time", "flops"), help="what the x axis is; time in seconds of training, without pauses (default step)")  # fmt: skip
    action.add_argument("--log-x", action="store_true", help="make the picture's x axis logarithmic")
    action.add_argument("--log-y", action="store_true", help="make the picture's value axis logarithmic")
    action.add_argument("--out", metavar="FILE", help="write the chart to FILE.svg, .png or .csv; a PNG needs rsvg-convert or another converter")  # fmt: skip
    force_option(action)
    action_json_option(action)
    _add_steps(actions)


def _add_steps(actions: Commands) -> None:
    action = actions.add(
        "steps",
        "read the checkpoints in a folder of another program, step by step",
        steps,
        more="PATH is a folder with checkpoints of one model side by side: checkpoint-500, step_1000, revisions, or files such as model_000500.pt. "
        "Prints one row per checkpoint: the pinned prompts, the head with the highest induction score, and which checkpoints "
        "have the same weights, byte for byte. --json: all of it, also a sample. What was read is kept in the cache; "
        "the folder is never written to.",
        examples=("tui-llm runs steps out/", 'tui-llm runs steps out/ --pin "The cat sat on the=> mat"', "tui-llm runs steps out/ --lens", "tui-llm runs steps out/ --list"),
    )  # fmt: skip
    action.add_argument("path", metavar="PATH", help="a folder of checkpoints")
    action.add_argument("--pin", action="append", metavar="PIN", help=PIN)
    action.add_argument(
        "--list",
        action="store_true",
        help="only list the checkpoints, compare their files, and show what was read before; opens no model",
    )
    action.add_argument("--lens", action="store_true", help="also the logit lens of each pin: the target's p after each layer, step by step")  # fmt: skip
    device_option(action)
    action_json_option(action)


def steps(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import foreign_steps

    foreign_steps.show_steps(options)


def list_runs(options: argparse.Namespace) -> None:
    from tui_llm.common import paths
    from tui_llm.common.display import visible
    from tui_llm.facts.machine_reading import as_json as as_object
    from tui_llm.training.run import gauges
    from tui_llm.training.run.health import as_json, listed
    from tui_llm.training.run.run import runs
    from tui_llm.training.run.snapshot import flops_per_token, last_metrics, speed

    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for run in runs():
        status, last = run.status_and_metric()
        recent = last_metrics(run) or ([last] if last else [])
        rate = speed(recent)
        health = listed(run, alive=status.alive)
        parent, machine = _parent(run), gauges.newest(run.metrics_path)
        branch = f"branch of {parent['parent']} after step {parent['parent_step']:,}; " if parent["parent"] else ""
        notes.append(branch + _note(status.summary, health))
        rows.append(
            {"name": run.name, "state": status.state, "step": status.step, "steps": status.steps,
             "loss": last.loss if last else None, "tokens_per_second": rate, "mfu": gauges.mfu(run.facts(), rate, flops_per_token(recent)), "machine": as_object(machine) if machine is not None else None,
             "objective": _objective(run), **parent, **_measured(last), "heads": _heads(run), **as_json(health), "message": status.message, "problem": status.problem or None, "path": str(run.path)}
        )  # fmt: skip
    others = _foreign()
    if options.json:
        put_json({"runs": rows, "foreign": others})
        return
    if not rows and not others:
        put(f"no runs in {paths.runs_dir()} yet; start one: tui-llm train TEXT.txt --run NAME")
        return
    cells = [
        (visible(r["name"]), r["state"], _steps(r),
         _loss(r), "–" if r["mfu"] is None else f"{100 * r['mfu']:.1f} %",
         visible(note))
        for r, note in zip(rows, notes, strict=True)
    ]  # fmt: skip
    cells += [(visible(r["name"]), "other program", _steps(r), _loss(r), "–", visible(r["message"])) for r in others]
    put_sentences(("run", "state", "step", "loss (nats)", "MFU", ""), cells, left=(0, 1, 5))


def _foreign() -> list[dict[str, Any]]:
    """The runs of other programs that were opened before. Of a long log, only the beginning is read here."""
    from tui_llm.training.run.foreign.foreign_curves import ForeignReader
    from tui_llm.training.run.foreign.foreign_run import opened

    rows = []
    for run in opened():
        reader = ForeignReader(run)
        found = reader.read()
        status, note = found.status, "; the beginning of its log" if found.reading else ""
        rows.append(
            {"name": run.name, "path": str(run.source), "log": reader.kind or None, "step": status.step, "steps": status.steps,
             "loss": found.train[-1][1] if found.train else None, "val_loss": found.validation[-1][1] if found.validation else None,
             "message": " ".join(filter(None, (status.message + note, status.problem)))}
        )  # fmt: skip
    return rows


def _note(summary: str, health: Health | None) -> str:
    """The last column: the newest alarm, where a live run will end, the worker's message."""
    parts = []
    if health is not None and health.alarms:
        newest, more = health.alarms[-1], f" (+{health.count - 1})" if health.count > 1 else ""
        parts.append(f"! {newest.kind} at step {newest.step:,}{more}")
    if health is not None and health.band is not None and not health.band.missing:
        parts.append(health.band.words)
    return " · ".join([*parts, *([summary] if summary else [])])


def _heads(run: Run) -> dict[str, Any] | None:
    """The best heads at the newest evaluation; None if the run has no head scores."""
    from tui_llm.facts.head_scores import SCORES, best
    from tui_llm.training.run import head_readings

    newest = head_readings.newest(run)
    if newest is None:
        return None
    tops = {score: best(newest.scores, score) for score in SCORES}
    return {"step": newest.step} | {
        score: {"layer": top.layer, "head": top.head, "score": top.of(score)}
        for score, top in tops.items()
        if top is not None
    }


def _steps(r: dict[str, Any]) -> str:
    """Such as `40 / 60`; a dash where the settings can't be read, or a log does not say how many there will be."""
    return f"{r['step']:,} / {r['steps']:,}" if r["steps"] else f"{r['step']:,} / –"


def _loss(row: dict[str, Any]) -> str:
    """The last loss; of a run that learns a reward the mean reward, named."""
    if row.get("reward") is not None:
        return f"reward {row['reward']:.3f}"
    return "–" if row["loss"] is None else f"{row['loss']:.4f}"


def _objective(run: Run) -> str | None:
    """What the run learns: pretraining, preference or reward; None if its config can't be read."""
    try:
        return run.config().settings.objective
    except UserError:
        return None


def _parent(run: Run) -> dict[str, Any]:
    """The run that this one branches from, and after which step; None if it is no branch."""
    try:
        config = run.config()
    except UserError:
        return {"parent": None, "parent_step": None}
    return {"parent": config.parent or None, "parent_step": config.parent_step if config.parent else None}


def _measured(last: Metric | None) -> dict[str, float]:
    """What a run that learns from answers measured at its last step."""
    if last is None:
        return {}
    names = ("margin", "agreement", "chosen_reward", "rejected_reward", "reward", "kl", "val_margin", "val_agreement", "val_reward", "val_kl")  # fmt: skip
    return {name: value for name in names if (value := getattr(last, name)) is not None}


def rename(options: argparse.Namespace) -> None:
    from tui_llm.training.run.rename import rename
    from tui_llm.training.run.run import find

    run = rename(find(options.old), options.new)
    if options.json:
        put_json({"run": run.name, "before": options.old, "path": str(run.path)})
    else:
        put(f"run {options.old} renamed to {run.name}")


def delete(options: argparse.Namespace) -> None:
    """Asks on a terminal; without one, only --yes deletes."""
    from tui_llm.training.run.run import find

    run = find(options.run)
    if not options.yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UserError(f"this deletes run {run.name} and all its checkpoints; add --yes to confirm")
        if run.status().alive:
            raise UserError(f"run {run.name} is training; stop it first (tui-llm stop {run.name})")
        from tui_llm.common.numbers import file_size

        print(f"Delete run {run.name} and all its checkpoints, {file_size(run.size())}? [y/N] ", end="",
              file=sys.stderr, flush=True)  # fmt: skip
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UserError(f"run {run.name} is not deleted")
    run.delete()
    if options.json:
        put_json({"run": run.name, "deleted": True})
    else:
        put(f"run {run.name} is deleted")


def compare(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.training.run import compare as comparing
    from tui_llm.training.run.foreign.foreign_run import find

    names = list(dict.fromkeys(options.run))
    if len(names) < 2:
        raise UserError("name two runs or more to compare; `tui-llm runs` lists them")
    found = comparing.compare([find(name) for name in names])
    if options.json:
        outcomes = [{**asdict(outcome), "problem": outcome.problem or None} for outcome in found.outcomes]
        differing = {name: dict(zip(names, values, strict=True)) for name, values in found.differing}
        put_json({"runs": outcomes, "differing": differing})
    else:
        head, *rows = ([visible(cell) for cell in row] for row in comparing.table(found))
        put(report.table(head, rows, left=(0,)))


def curves(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import run_curves

    run_curves.show(options)
