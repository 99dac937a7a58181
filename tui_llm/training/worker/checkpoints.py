"""A run's checkpoints: a model folder each, with the optimiser's state. Written aside, renamed when whole."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import remedy, sweep, write_json
from tui_llm.llm.model import checkpoint, intact
from tui_llm.llm.model import device as devices
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import BPETokenizer, save_folder
from tui_llm.training.run.run import Run
from tui_llm.training.worker.distributed import part_like, whole
from tui_llm.training.worker.loop import Trainer

KEEP = 2  # the newest ones; a resumed run needs one, a damaged one leaves one


def save(run: Run, trainer: Trainer, tokenizer: BPETokenizer, step: int) -> Path:
    """Writes `checkpoint-STEP/`. Raises `UserError` where the disk is full and `Diverged` where the weights are no
    numbers; older checkpoints are then untouched and nothing is left of this one.

    All processes have to call it where the model is in parts; rank 0 writes.
    """
    final = run.path / f"checkpoint-{step}"
    aside = run.path / f".checkpoint-{step}.part"
    view, tensors = gathered(trainer), _state(trainer)
    if not trainer.ranks.first:
        return final
    view.check(step)
    storage.rmtree(aside, ignore_errors=True)
    try:
        storage.mkdir(aside)
        checkpoint.save(view.model, aside, end_of_text=tokenizer.end_of_text)
        save_folder(tokenizer, aside)
        checkpoint.write_tensors(aside / "optimizer.safetensors", tensors)
        # The data order and dropout's noise follow from the seed and the step (see loop.py): this is all RNG state.
        record = {"step": step, "seed": trainer.settings.seed, "sha256": intact.digests(aside)}
        write_json(aside / intact.RECORD, record)
        storage.sync_folder(aside)
        if final.exists():  # a damaged one that was passed over, and has now been reached again
            _drop(final)
        storage.replace(aside, final)
        storage.sync_folder(run.path)
    except (UserError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        why = (isinstance(cause, OSError) and cause.strerror) or cause or error
        raise UserError(f"can't write a checkpoint in {run.path}: {why}; {remedy(cause)}, then resume") from error
    finally:
        storage.rmtree(aside, ignore_errors=True)
    drop_old(run)
    return final


def drop_old(run: Run) -> None:
    """Deletes all but the newest ones. Only where the newest is known to be whole."""
    for _, old in run.checkpoints()[:-KEEP]:
        _drop(old)


def drop_bad(run: Run, last: int) -> bool:
    """Deletes the checkpoint of step `last`, whose weights turned out to be no good, where an older one is left to go on
    from; says whether it did."""
    steps = [step for step, _ in run.checkpoints()]
    if last not in steps or min(steps) >= last:
        return False
    _drop(run.path / f"checkpoint-{last}")
    return True


def _state(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What the optimisers remember, whole, on the CPU (nothing where another process has it and writes)."""
    if not (trainer.ranks.first or trainer.ranks.shard):
        return {}
    names = {id(p): name for name, p in trainer.model.weights()}
    return {
        f"{names[id(p)]}.{key}": whole(value.detach()).cpu().contiguous()
        for optimizer in trainer.optimizers
        for p, state in optimizer.state.items()
        for key, value in state.items()
    }


def _drop(folder: Path) -> None:
    """Deletes a checkpoint. Renamed first: one that is half deleted must not be taken for a whole one."""
    old = folder.with_name(f".{folder.name}.old")
    storage.rmtree(old, ignore_errors=True)
    try:
        storage.replace(folder, old)
    except OSError:
        return  # there is one checkpoint more than need be
    storage.rmtree(old, ignore_errors=True)


def clean(run: Run) -> None:
    """Deletes what a killed worker left half-written. Only for who holds the run's lock."""
    sweep(run.path)
    for folder in run.path.glob(".checkpoint-*"):
        storage.rmtree(folder, ignore_errors=True)
    for mine in ("metrics.jsonl", "samples.jsonl", "status.json", "corpus.json", "changes.json", "batch.json", "pid"):
        for part in run.path.glob(f".{mine}.*.part"):  # of an earlier version
            storage.unlink(part, missing_ok=True)


def load_newest(run: Run, model: GPT) -> tuple[int, dict[str, torch.Tensor], str] | None:
    """Fills `model` from the newest checkpoint that is whole: (step, optimiser state, what to tell); None where there
    is none.

    A damaged one is passed over for the one before, and the text says so.
    """
    told = ""
    for step, folder in reversed(run.saved()):
        try:
            record = intact.check(folder)
            saved = checkpoint.load(folder)
            state = load_file(folder / "optimizer.safetensors")
            if int(record["step"]) != step:
                raise UserError("its training.json is of another step")
            _check_state(model, state, run.config().settings.optimiser)
            # Copied, not taken over: the saved ones lie in the file's own memory, aligned as it happens to be, and the
            # run's settings (dropout) are the model's, not the folder's.
            model.load_state_dict(saved.state_dict())
            return step, {name: tensor.clone() for name, tensor in state.items()}, told
        except (UserError, SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            told += f"checkpoint-{step} is damaged and was passed over ({' '.join(str(error).split())[:300]}). "
    if told:
        raise UserError(f"{told}No older one is left; start a new run")
    return None


def _kept(model: GPT, optimiser: str) -> dict[str, tuple[str, ...]]:
    """Each parameter's name → what its optimiser remembers of it."""
    by_muon = {id(p) for p in model.matrices()} if optimiser == "muon" else set()
    return {
        name: ("momentum_buffer",) if id(p) in by_muon else ("step", "exp_avg", "exp_avg_sq")
        for name, p in model.weights()
    }


def _check_state(model: GPT, state: dict[str, torch.Tensor], optimiser: str) -> None:
    kept = _kept(model, optimiser)
    for name, parameter in model.weights():
        for key in kept[name]:
            tensor = state.get(f"{name}.{key}")
            if tensor is None or (key != "step" and tensor.shape != parameter.shape):
                raise UserError(f"its optimiser state lacks {name}.{key}, or has another shape")


def restore(trainer: Trainer, state: dict[str, torch.Tensor] | None) -> None:
    """Puts the optimisers' saved state, as `load_newest` gives it, back. Only rank 0 needs to have it."""
    kept = _kept(trainer.model, trainer.settings.optimiser)
    names = {id(p): name for name, p in trainer.model.weights()}
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                name = names[id(p)]
                optimizer.state[p] = {}
                for key in kept[name]:
                    blank = torch.empty(() if key == "step" else p.shape)
                    value = trainer.ranks.tensor(state[f"{name}.{key}"] if state else blank)
                    # AdamW counts its steps in a CPU tensor unless it is fused on a GPU.
                    value = value.to("cpu" if key == "step" and trainer.device.type != "cuda" else trainer.device)
                    optimizer.state[p][key] = part_like(value, p)


def gathered(trainer: Trainer) -> Trainer:
    """`trainer` with a model that can be read by one process alone: itself, or a view with a copy on the CPU, where the
    model is in parts. All processes have to ask; only rank 0's is of use."""
    if not trainer.ranks.shard:
        return trainer
    view, model = copy.copy(trainer), trainer.model
    with torch.device("meta"):
        view.model = GPT(model.config)
    for name, parameter in model.weights():
        tensor = whole(parameter.detach()).cpu()
        if trainer.ranks.first:
            module, _, leaf = name.rpartition(".")
            setattr(view.model.get_submodule(module), leaf, nn.Parameter(tensor, requires_grad=False))
    if model.config.tied:
        view.model.head.weight = view.model.tokens.weight
    view.device = torch.device("cpu")
    view.bfloat16 = devices.trains_in_bfloat16(view.device)
    view.model.used = model.used
    view.loss = view.model.loss
    return view
