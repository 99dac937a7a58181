"""`tui-llm export`: a run's newest checkpoint as a model folder, or its metrics as TensorBoard's event files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import force_option, json_option, run_argument
from tui_llm.commands.shared.output import out_path, put, put_json
from tui_llm.commands.shared.streams import print_error
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from tui_llm.training.run.run import Run


def add(commands: Commands) -> None:
    commands.add(
        "export",
        "copy a run's newest checkpoint as a model folder",
        export,
        _add_options,
        more="Writes config.json, model.safetensors, the vocabulary and a card: Hugging Face's layout for GPT-2, which `transformers` "
        "opens. The folder must not exist, or be empty; --force replaces the files of those names in it, and no others.",
        examples=("tui-llm export first my-model", "tui-llm export first logs --tensorboard"),
    )


def _add_options(parser: Parser) -> None:
    run_argument(parser)
    parser.add_argument("folder", metavar="FOLDER", help="where to write: a folder that does not exist or is empty")
    force_option(parser)
    parser.add_argument("--tensorboard", action="store_true", help="write the run's metrics as TensorBoard's event files instead")  # fmt: skip
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="the dtype of the weights (default float32)")  # fmt: skip
    json_option(parser)


def export(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.training.run.run import find
    from tui_llm.training.worker.export import export as write

    run = find(options.run)
    folder = out_path(options.folder, "FOLDER")
    if options.tensorboard:
        _export_events(run, folder, options)
        return
    step = write(run, folder, options.dtype, damaged=lambda line: print_error(visible(line)), force=options.force)
    if options.json:
        put_json({"run": run.name, "path": str(folder), "step": step, "dtype": options.dtype})
        return
    put(f"run {run.name} at step {step:,} is now the model folder {visible(str(folder))} ({options.dtype})")


def _export_events(run: Run, folder: Path, options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible
    from tui_llm.common.new_files import check_folder, write_folder
    from tui_llm.training.plan import extras
    from tui_llm.training.worker import tensorboard

    extras.check_tensorboard()
    if run.last_metric() is None:
        raise UserError(f"run {run.name} has no metrics yet; wait for its first step")
    if any(folder.glob("events.out.tfevents.*")):  # TensorBoard would show both as one run
        raise UserError(f"{folder} already has event files; give another name")
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
