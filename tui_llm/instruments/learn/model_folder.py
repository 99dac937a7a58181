"""The model that a copy is made of, and the new model folder that a trained copy is written to, with a model card that
records how it was made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from tui_llm.common import new_files, paths, storage
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.facts.recipe import OPTIMIZERS
from tui_llm.llm.hub.hub import save_vocabulary
from tui_llm.llm.learn.learner import Learner
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.llm.tokens.tokenizer import BPETokenizer, Tokenizer
from tui_llm.session.open_model import OpenModel

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def trainable(open_model: OpenModel) -> GPT:
    """The open model. Raises `UserError` if no copy of it can be trained."""
    model = open_model.gpt  # raises first if the model runs through transformers
    if (dtype := open_model.weights().dtype) != "fp32":
        raise UserError(
            f"{dtype} weights can't be trained, they are for inference only; open the model with --weights fp32"
        )
    return model


def write_folder(open_model: OpenModel, learner: Learner, name: str, *, force: bool = False) -> Path:
    """Write the model of *Learn this*. Raises as `write_model` does."""
    text = card(open_model, learner, new_folder(name, force=force).name)
    return write_model(writable(open_model), learner.model, name, text, force=force)


def writable(open_model: OpenModel) -> Tokenizer:
    """The open model's vocabulary. Raises `UserError` if it can't be written as vocab.json and merges.txt."""
    vocabulary = open_model.tokenizer
    if not isinstance(vocabulary, BPETokenizer | ClosedTokenizer):
        raise UserError(
            f"{vocabulary.name} has its vocabulary as a tokenizer.json only: a folder needs vocab.json and merges.txt"
        )
    return vocabulary


def chat_text(open_model: OpenModel) -> str:
    """The open model's chat template; empty if it has none."""
    return open_model.chat_template.text if open_model.chat_template else ""


def write_model(
    vocabulary: Tokenizer, model: GPT, name: str, text: str, *, force: bool = False, chat: str = ""
) -> Path:
    """Write a model folder, atomically, with `text` as its model card and the chat template `chat`. Raises `UserError` if the name is taken and
    `force` is not set, or if it can't be written; an existing folder is then unchanged."""
    folder = new_folder(name, force=force)

    def fill(aside: Path) -> None:
        checkpoint.save(model, aside, end_of_text=vocabulary.end_of_text)
        save_vocabulary(vocabulary, aside)
        storage.write_text(aside / "README.md", text, "backslashreplace")
        if chat:
            storage.write_text(aside / "chat_template.jinja", chat, "backslashreplace")

    new_files.write_folder(folder, fill, last="config.json", force=force)
    return folder


def new_folder(name: str, *, force: bool = False, inputs: Iterable[Path] = ()) -> Path:
    """The path for a new model: `name` in the user's models folder, or `name` itself if it is a path. Raises
    `UserError` if the name is invalid, or taken and `force` is not set; in any case if it lies in the folder of a model or
    run among `inputs` (`new_files.check_folder`), or one of `inputs` is a file in it, which its files could replace."""
    looks_like_path = os.sep in name or bool(os.altsep and os.altsep in name) or name.startswith((".", "~"))
    if not (looks_like_path or _NAME.fullmatch(name)):
        raise UserError(
            f"{name[:80]!r} can't name a model; use letters, digits, '.', '_' and '-' (at most 64, starting with a letter or "
            "digit), or give a folder's path"
        )
    if not looks_like_path:
        for top in (paths.shipped_models_dir(), paths.runs_dir()):
            if os.path.lexists(top / name):
                raise UserError(f"a model or run {name!r} already exists; choose another name")
    folder = paths.absolute(name) if looks_like_path else paths.models_dir() / name
    inputs = tuple(inputs)
    new_files.check_folder(folder, force=force, inputs=inputs)
    for one in inputs:
        if one.is_file() and os.path.realpath(one.parent) == os.path.realpath(folder):
            raise UserError(f"{one}, which this reads, is in {folder}; give another folder")
    return folder


def card(open_model: OpenModel, learner: Learner, name: str) -> str:
    """The folder's README: the original model, what was learned, how, and the effect on the target."""
    weights, decode = open_model.weights(), open_model.tokenizer.decode
    step = "" if weights.step is None else f" at step {weights.step:,}"
    rows = "\n".join(
        f"| {one.number} | {OPTIMIZERS[one.recipe.optimizer]} | {one.recipe.learning_rate:g} | {one.gradient_norm:.4g} "
        f"| {one.loss:.4f} | {one.probability:.4g} |"
        for one in learner.steps
    )
    many = len(learner.steps)
    wanted = len(learner.wanted)
    target = (
        "1 token"
        if wanted == 1
        else f"{wanted} tokens, each predicted from the true ones before it; the loss is their mean"
    )
    return f"""# {visible(name)}

{visible(weights.name)}{step} after {many} optimizer step{"" if many == 1 else "s"} on one prompt and target: an experiment
of tui-llm's *Learn this*, not a model to rely on. Its loss on other texts may be higher. Its licence and its
training text are those of {visible(weights.name)}.

Prompt ({len(learner.ids):,} token{"" if len(learner.ids) == 1 else "s"}; control characters are shown as symbols):

    {visible(decode(learner.ids))}

Target ({target}):

    {visible(decode(learner.wanted))}

| step | optimizer | step size | gradient norm | loss after (nats a token) | p(target) after |
|---|---|---|---|---|---|
{rows}

SGD is θ − step size × gradient, nothing else. AdamW has β 0.9 and 0.999 and a weight decay of 0.01. No dropout, no warm-up,
no clipping.
"""
