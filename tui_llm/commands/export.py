"""`tui-llm export`: a run's newest checkpoint as a model folder or GGUF file, or its metrics as TensorBoard's event
files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import force_option, json_option, run_argument
from tui_llm.commands.shared.output import out_path, put, put_json
from tui_llm.commands.shared.streams import print_error
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted

if TYPE_CHECKING:
    from pathlib import Path

    from tui_llm.training.run.run import Run


class _GgufFlag(argparse.Action):
    """A flag after which the argument `folder` may be left out. (With nargs="?" argparse would take no folder that follows
    an option.)"""

    def __init__(self, option_strings: list[str], dest: str, folder: argparse.Action, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, help=help)
        self.folder = folder

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        setattr(namespace, self.dest, True)
        self.folder.required = False


def add(commands: Commands) -> None:
    commands.add(
        "export",
        "copy a run's newest checkpoint, or a model, as a model folder",
        export,
        _add_options,
        more="Writes config.json, model.safetensors, the vocabulary and a card, which `transformers` 5 opens: Hugging Face's layout for "
        "GPT-2, with architecture switches that of Starcoder2, Arcee or NanoChat. RUN can also be a model's name or folder. The folder must not exist, or be empty; --force replaces the files of those names in it, and no others.\n\n"
        "With --gguf it writes a file that llama.cpp opens. The dtype is that of the "
        "matrices: f32, f16 or q8_0 (8 bits with a scale for every 32 weights; rows that are no multiple of 32 long are f16).",
        examples=(
            "tui-llm export first my-model",
            "tui-llm export first first.gguf --gguf --dtype q8_0",
            "tui-llm export first logs --tensorboard",
        ),
    )


def _add_options(parser: Parser) -> None:
    run_argument(parser)
    folder = parser.add_argument("folder", metavar="FOLDER", help="where to write: a folder that does not exist or is empty; with --gguf a file, if any (default RUN.gguf)")  # fmt: skip
    force_option(parser)
    parser.add_argument("--gguf", action=_GgufFlag, folder=folder, help="write a GGUF file, for llama.cpp")
    parser.add_argument("--tensorboard", action="store_true", help="write the run's metrics as TensorBoard's event files instead")  # fmt: skip
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16", "f32", "f16", "q8_0"), help="the dtype of the weights (default float32, with --gguf f32)")  # fmt: skip
    json_option(parser)


def export(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible

    if options.gguf:
        _export_gguf(options)
        return
    folder = out_path(options.folder, "FOLDER")
    if not options.tensorboard and not _is_run(options.run):
        _export_model(options, folder)
        return
    run = _run(options.run)
    if options.tensorboard:
        if options.dtype != "float32":
            raise UserError("--tensorboard writes curves, not weights: leave out --dtype")
        _export_events(run, folder, options)
        return
    dtype = _folder_dtype(options)
    from tui_llm.training.worker.export import export as write

    step = write(run, folder, dtype, damaged=lambda line: print_error(visible(line)), force=options.force)
    if options.json:
        put_json({"run": run.name, "path": str(folder), "step": step, "dtype": dtype})
        return
    put(f"run {run.name} at step {step:,} exported to the model folder {visible(str(folder))} ({dtype})")


def _folder_dtype(options: argparse.Namespace) -> str:
    dtype: str = {"f32": "float32", "f16": "float16"}.get(options.dtype, options.dtype)
    if dtype == "q8_0":
        raise UserError("q8_0 is a format of GGUF: add --gguf")
    return dtype


def _run(name: str) -> Run:
    """The run of that name, of `run:NAME`, or of its folder."""
    from tui_llm.llm.hub import lookup
    from tui_llm.training.run.run import Run, find, runs

    if not any(run.name == name for run in runs()):
        try:
            found = lookup.find(name)
        except UserError:
            return find(name)
        if found.kind == "run":
            return Run(found.folder.parent)
    return find(name)


def _is_run(name: str) -> bool:
    """Whether a run has the name, or nothing has: the message then lists the runs."""
    from tui_llm.llm.hub import lookup
    from tui_llm.training.run.run import runs

    if any(run.name == name for run in runs()):
        return True
    try:
        return lookup.find(name).kind == "run"
    except UserError:
        return True


def _export_model(options: argparse.Namespace, folder: Path) -> None:
    from tui_llm.common.display import visible
    from tui_llm.training.worker.export import export_model

    dtype = _folder_dtype(options)
    found = export_model(options.run, folder, dtype, force=options.force)
    if options.json:
        put_json({"run": found.name, "path": str(folder), "step": found.step, "dtype": dtype})
        return
    put(f"model {visible(found.name)} exported to the model folder {visible(str(folder))} ({dtype})")


def _export_gguf(options: argparse.Namespace) -> None:
    from pathlib import Path

    from tui_llm.common.display import visible
    from tui_llm.training.worker.export import export_gguf

    if options.tensorboard:
        raise UserError("--gguf and --tensorboard write different things; give one of them")
    dtype = {"float32": "f32", "float16": "f16"}.get(options.dtype, options.dtype)
    if dtype == "bfloat16":
        raise UserError("--gguf writes f32, f16 or q8_0; choose one of them with --dtype")
    name = options.folder
    if name is None:
        name = f"{Path(options.run.removeprefix('run:')).name or 'model'}.gguf"
    path = out_path(name, "FOLDER")
    found = export_gguf(options.run, path, dtype, damaged=lambda line: print_error(visible(line)), force=options.force)
    if options.json:
        put_json({"run": found.name, "path": str(path), "step": found.step, "dtype": dtype})
        return
    step = "" if found.step is None else f" at step {found.step:,}"
    put(f"{visible(found.name)}{step} exported to the GGUF file {visible(str(path))} ({dtype}); llama.cpp opens it")


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
    put(
        f"{counted(count, 'step')} of run {run.name} exported as event files to {visible(str(folder))}: tensorboard --logdir FOLDER"
    )
