"""Export a run's newest checkpoint, or a model, as a model folder or a GGUF file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from tui_llm.common import paths, storage
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.new_files import check_file, check_folder, write_folder, write_new
from tui_llm.llm.adapters.chat import template_text
from tui_llm.llm.hub import hub, lookup, model_list
from tui_llm.llm.hub.open_model import open_gpt
from tui_llm.llm.model import checkpoint, intact
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.model_config import GGUF, is_gpt2
from tui_llm.llm.tokens.tokenizer import BPETokenizer, Tokenizer
from tui_llm.training.plan import start
from tui_llm.training.run.run import Run, runs


def export(
    run: Run,
    folder: Path,
    dtype: str = "float32",
    damaged: Callable[[str], object] = lambda line: None,
    *,
    force: bool = False,
) -> int:
    """Writes the newest intact checkpoint to `folder` atomically and returns its step.

    `damaged` is called with a message for each checkpoint that was skipped because it is not what was saved. Raises
    `UserError` if the run has no checkpoint, if `folder` exists (unless `force`, which replaces the model's files in
    it), or if it can't be written.
    """
    step, source, passed = intact.newest_of_run(run.name, run.saved())
    for line in passed:
        damaged(line)
    inputs = (run.path,)
    check_folder(folder, force=force, inputs=inputs)
    vocabulary, model = hub.load_trained(source, run.name), checkpoint.load(source)
    _write(model, vocabulary, source, run_card(run, step), folder, dtype, force=force, inputs=inputs)
    return step


def export_model(name: str, folder: Path, dtype: str = "float32", *, force: bool = False) -> lookup.LocalModel:
    """Writes the model called `name`, which is no run, to `folder` atomically, with its card and chat template.

    Raises `UserError` if there is no such model, if it is not in GPT-2's layout, if `folder` exists (unless `force`), or
    if it can't be written.
    """
    found = lookup.find(name)
    inputs = (found.folder,)
    check_folder(folder, force=force, inputs=inputs)
    if not is_gpt2(found.folder):
        raise UserError(f"{name} is not in GPT-2's layout, and only that is written; copy its folder instead")
    model, vocabulary = open_gpt(found.folder, found.name, torch.device("cpu"))
    text = model_list.card(found.folder)
    _write(model, vocabulary, found.folder, text, folder, dtype, force=force, inputs=inputs)
    return found


def _write(
    model: GPT,
    vocabulary: Tokenizer,
    source: Path,
    card: str,
    folder: Path,
    dtype: str,
    *,
    force: bool,
    inputs: tuple[Path, ...],
) -> None:
    def fill(aside: Path) -> None:
        checkpoint.save(model, aside, end_of_text=vocabulary.end_of_text, dtype=getattr(torch, dtype))
        hub.save_vocabulary(vocabulary, aside)
        if (chat := template_text(source)) is not None:
            storage.write_text(aside / start.CHAT, chat)
        if card:
            storage.write_text(aside / "README.md", card, "backslashreplace")

    write_folder(folder, fill, last="config.json", force=force, inputs=inputs)


def run_card(run: Run, step: int) -> str:
    """The folder's README: which run and step, its corpus and its settings."""
    config = run.config()
    settings = config.settings
    begun = f", begun from {visible(settings.from_model)}" if settings.from_model else ""
    rows = "\n".join(
        f"| {name} | {visible(str(value)).replace('|', chr(92) + '|')} |"
        for name, value in dataclasses.asdict(settings).items()
        if value not in ("", None)
    )
    corpus = ", ".join(visible(Path(one).name) for one in config.corpus)
    weights = "The moving average of the weights" if settings.ema_decay else "The weights"
    return f"""# {visible(run.name)}

{weights} of a training run of tui-llm at step {step:,} of {settings.steps:,}{begun}. Corpus: {corpus or "none"}.

| setting | value |
|---|---|
{rows}
"""


def export_gguf(
    name: str,
    path: Path,
    dtype: str,
    damaged: Callable[[str], object] = lambda line: None,
    *,
    force: bool = False,
) -> lookup.LocalModel:
    """Writes the run or model called `name` to the GGUF file `path` atomically, its weights as f32, f16 or q8_0.

    `damaged` is called with a message if newer checkpoints of the run were skipped. Raises `UserError` if there is no
    such model, if it is not in GPT-2's layout, if `path` exists (unless `force`), or if it can't be written.
    """
    from tui_llm.llm.adapters.gguf_writer import write_gguf

    if path.suffix != GGUF:
        raise UserError(f"{path} is not the name of a GGUF file; give one that ends in {GGUF}")
    # A run comes first, also where a shipped model has its name.
    found = lookup.find(paths.RUN + name if any(run.name == name for run in runs()) else name)
    if found.note:
        damaged(found.note)
    check_file(path, force=force, inputs=(found.folder,))
    if not is_gpt2(found.folder):
        raise UserError(
            f"{name} is not in GPT-2's layout, and only that is written as GGUF; llama.cpp has converters for others"
        )
    model, vocabulary = open_gpt(found.folder, found.name, torch.device("cpu"))
    if not isinstance(vocabulary, BPETokenizer):
        raise UserError(
            f"{name} has no byte-level BPE, and only that is written into a GGUF file; export it as a folder instead"
        )
    write_new(
        path, lambda part: write_gguf(model, vocabulary, part, found.name, dtype), force=force, inputs=(found.folder,)
    )
    return found
