"""A run's checkpoints: a model folder each, with the optimiser's state. Written aside, renamed when whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tui_llm.errors import UserError
from tui_llm.files import read_json, write_json
from tui_llm.llm import checkpoint
from tui_llm.llm.model import GPT
from tui_llm.llm.tokenizer import BPETokenizer, save_folder
from tui_llm.training.loop import Trainer
from tui_llm.training.run import Run

KEEP = 2  # the newest ones; a resumed run needs one, a damaged one leaves one


def save(run: Run, trainer: Trainer, tokenizer: BPETokenizer, step: int) -> Path:
    """Writes `checkpoint-STEP/`. Raises `UserError` where the disk is full; older checkpoints are then untouched."""
    final = run.path / f"checkpoint-{step}"
    aside = run.path / f".checkpoint-{step}.part"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        checkpoint.save(trainer.model, aside, end_of_text=tokenizer.end_of_text)
        save_folder(tokenizer, aside)
        names = {id(p): name for name, p in trainer.model.weights()}
        tensors = {
            f"{names[id(p)]}.{key}": value.detach().cpu().contiguous()
            for p, state in trainer.optimizer.state.items()
            for key, value in state.items()
        }
        checkpoint.write_tensors(aside / "optimizer.safetensors", tensors)
        # The data order and dropout's noise follow from the seed and the step (see loop.py): this is all RNG state.
        write_json(aside / "training.json", {"step": step, "seed": trainer.settings.seed})
        if final.exists():
            shutil.rmtree(final)
        aside.replace(final)
        _sync(run.path)
    except OSError as error:
        raise UserError(f"can't write a checkpoint in {run.path}: {error.strerror or error}; free some space, then resume") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for _, old in run.checkpoints()[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _sync(folder: Path) -> None:
    """Makes the rename itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_newest(run: Run) -> tuple[int, GPT, dict[str, torch.Tensor], str] | None:
    """(step, model, optimiser state, what to tell) of the newest checkpoint that is whole; None where there is none.

    A damaged one is passed over for the one before, and the text says so.
    """
    told = ""
    for step, folder in reversed(run.checkpoints()):
        try:
            model = checkpoint.load(folder)
            state = load_file(folder / "optimizer.safetensors")
            if int(read_json(folder / "training.json")["step"]) != step:
                raise UserError("its training.json is of another step")
            return step, model.requires_grad_(True), state, told
        except (UserError, SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            told += f"checkpoint-{step} is damaged and was passed over ({error}). "
    if told:
        raise UserError(f"{told}No older one is left; start a new run")
    return None


def restore(trainer: Trainer, state: dict[str, torch.Tensor]) -> None:
    """Puts the optimiser's saved state back. Raises `UserError` where it does not fit the model."""
    for name, parameter in trainer.model.weights():
        try:
            trainer.optimizer.state[parameter] = {
                # AdamW counts its steps in a CPU tensor unless it is fused on a GPU.
                key: (value if key == "step" and trainer.device.type == "cpu" else value.to(trainer.device))
                for key in ("step", "exp_avg", "exp_avg_sq")
                for value in (state[f"{name}.{key}"],)
            }
        except KeyError as error:
            raise UserError(f"the checkpoint's optimiser state lacks {error}; it is damaged") from error
