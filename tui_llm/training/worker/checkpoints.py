"""A run's checkpoints: each is a model folder with the optimizer's state, written aside and renamed when complete."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tui_llm.common import storage
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.common.files import remedy, sweep, write_json, write_text
from tui_llm.common.foreign_files import is_unreadable, read_json
from tui_llm.common.memory import NotEnoughMemory, is_short
from tui_llm.llm.adapters.chat import template_text
from tui_llm.llm.hub.hub import save_vocabulary
from tui_llm.llm.model import checkpoint, intact
from tui_llm.llm.model import device as devices
from tui_llm.llm.model.flat import FlatAdamW
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.training.plan import start
from tui_llm.training.run.run import Run
from tui_llm.training.run.status import number
from tui_llm.training.worker.distributed import part_like, whole
from tui_llm.training.worker.loop import Trainer

AVERAGE_UPDATES = "average.updates"  # in the optimizer's state: the number of updates of the average of the weights
# What decides a model's numbers and may leave the shapes of its weights as they are.
COMPUTES = ("heads", "key_heads", "rope", "rmsnorm", "qk_norm", "relu2", "softcap", "window", "exact_gelu")
NONE_LEFT = "No older one is left; start a new run"
KEEP = 2  # number of newest checkpoints to keep: if one is damaged, one is left to resume from


class OtherModel(UserError):
    """A checkpoint is intact, but of another model than the run's."""


class Unreadable(UserError):
    """The disk can't be read at present: nothing says that the checkpoint is damaged."""


def save(run: Run, trainer: Trainer, tokenizer: Tokenizer, step: int, seconds: float | None = None) -> Path:
    """Writes `checkpoint-STEP/` and returns its path. `seconds` are what a run with a time budget has used of it.

    With an average of the weights, that is the folder's model, and the weights that are trained are in the optimizer's state.
    Raises `UserError` if it can't be written, for example because the disk is full, and `Diverged` if a weight is not
    finite; then older checkpoints are unchanged and no partial checkpoint remains.

    With sharded weights, all processes must call it; rank 0 writes.
    """
    final = run.path / f"checkpoint-{step}"
    tensors = _stored_state(trainer)
    with trainer.evaluated_weights():
        view = gathered(trainer)
        if trainer.ranks.first:
            view.check(step)
            _write(run, view, tokenizer, step, tensors, seconds)
    return final


def _write(
    run: Run, view: Trainer, tokenizer: Tokenizer, step: int, tensors: dict[str, torch.Tensor], seconds: float | None
) -> None:
    """Writes the checkpoint of `step`, with the optimizer's state `tensors`."""
    final = run.path / f"checkpoint-{step}"
    aside = run.path / f".checkpoint-{step}.part"
    storage.rmtree(aside, ignore_errors=True)
    try:
        storage.mkdir(aside)
        checkpoint.save(view.model, aside, end_of_text=tokenizer.end_of_text)
        save_vocabulary(tokenizer, aside)
        if (chat := template_text(run.path / start.FOLDER)) is not None:  # the trained model keeps it
            write_text(aside / start.CHAT, chat)
        checkpoint.write_tensors(aside / "optimizer.safetensors", tensors)
        # Data order and dropout's noise depend on the seed and the step alone (see loop.py): no RNG state is needed.
        record = {
            "step": step,
            "seed": view.settings.seed,
            "arithmetic": view.arithmetic,
            "sha256": intact.digests(aside),
            **({} if seconds is None else {"seconds": round(seconds, 3)}),
        }
        write_json(aside / intact.RECORD, record)
        storage.sync_folder(aside)
        if final.exists():  # a damaged one that was skipped; training has reached its step again
            _drop(final)
        storage.replace(aside, final)
        storage.sync_folder(run.path)
    except (UserError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        why = (isinstance(cause, OSError) and cause.strerror) or cause or error
        raise UserError(f"can't write a checkpoint in {run.path}: {why}; {remedy(cause)}, then resume") from error
    finally:
        storage.rmtree(aside, ignore_errors=True)
    drop_old(run, step)


def drop_old(run: Run, newest: int) -> None:
    """Deletes all but the `KEEP` newest checkpoints up to `newest`, which is known to be complete, and that with which a branch
    begins: its steps are recomputed from it. Later ones are damaged ones that were skipped."""
    try:
        first = run.config().parent_step
    except UserError as error:  # damaged since
        if is_unreadable(error):
            return  # it may be a branch; the next checkpoint tries again
        first = 0
    for step, old in [one for one in run.checkpoints() if one[0] <= newest][:-KEEP]:
        if not first or step != first:
            _drop(old)


def drop_bad(run: Run, last: int) -> bool:
    """Deletes the checkpoint of step `last`, whose weights diverge, if there is an older one.

    Returns whether it did.
    """
    steps = [step for step, _ in run.checkpoints()]
    if last not in steps or min(steps) >= last:
        return False
    _drop(run.path / f"checkpoint-{last}")
    return True


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Returns the optimizers' state as full CPU tensors; empty on a process that neither writes nor has a shard.

    With an average of the weights also `NAME.average`, and the number of its updates.
    """
    if not (trainer.ranks.first or trainer.ranks.shard):
        return {}
    names = {id(p): name for name, p in trainer.model.weights()}
    flat = [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, FlatAdamW)]
    found = {name: value for optimizer in flat for name, value in optimizer.named_state()} | {
        f"{names[id(p)]}.{key}": whole(value.detach()).cpu().contiguous()
        for optimizer in trainer.optimizers
        if optimizer not in flat
        for p, state in optimizer.state.items()
        for key, value in state.items()
    }
    if any(not optimizer.state for optimizer in trainer.optimizers if optimizer not in flat):
        found = fresh_state(trainer.model, trainer.settings.optimizer) | found  # no update yet: all rewards were equal
    if trainer.average is not None:
        found |= {f"{name}.average": whole(value).cpu().contiguous() for name, value in trainer.average.tensors.items()}
        found[AVERAGE_UPDATES] = torch.tensor(trainer.average.updates)
    return found


def _stored_state(trainer: Trainer) -> dict[str, torch.Tensor]:
    """`state_of` as it is saved: the average is the folder's model, and `NAME.trained` are the weights that are trained."""
    state = state_of(trainer)
    if trainer.average is None or not state:
        return state
    kept = {name: value for name, value in state.items() if not name.endswith(".average")}
    # copies: the model gets the average while it is written
    return kept | {f"{name}.trained": whole(p.detach()).cpu().clone() for name, p in trainer.model.weights()}


def _loaded_state(state: dict[str, torch.Tensor], saved: GPT) -> dict[str, torch.Tensor]:
    """The inverse of `_stored_state`: moves the weights that are trained into `saved`. Raises `UserError` if one is missing."""
    if AVERAGE_UPDATES not in state:
        return state
    found = {name: value for name, value in state.items() if not name.endswith(".trained")}
    with torch.no_grad():
        for name, parameter in saved.weights():
            trained = state.get(f"{name}.trained")
            if trained is None or trained.shape != parameter.shape:
                raise UserError(f"its optimizer state lacks {name}.trained, or has another shape")
            found[f"{name}.average"] = parameter.detach().clone()
            parameter.copy_(trained)
    return found


def _drop(folder: Path) -> None:
    """Deletes a checkpoint. It is renamed first, so that a partly deleted one is never taken for a complete one."""
    old = folder.with_name(f".{folder.name}.old")
    storage.rmtree(old, ignore_errors=True)
    try:
        storage.replace(folder, old)
    except OSError:
        return  # it is kept, which does no harm
    storage.rmtree(old, ignore_errors=True)


def clean(run: Run) -> None:
    """Deletes the partial files that a killed worker left. Only the holder of the run's lock may call it."""
    sweep(run.path)
    for folder in run.path.glob(".checkpoint-*"):
        storage.rmtree(folder, ignore_errors=True)
    for mine in ("metrics.jsonl", "samples.jsonl", "status.json", "corpus.json", "changes.json", "batch.json", "pid"):
        for part in run.path.glob(f".{mine}.*.part"):  # left by an earlier version
            storage.unlink(part, missing_ok=True)


def load_newest(run: Run, model: GPT, most: int | None = None) -> tuple[int, dict[str, torch.Tensor], str] | None:
    """Loads the newest intact checkpoint, of step `most` or an earlier one, into `model`. Returns (step, optimizer state, message); None if there is none.

    Damaged checkpoints are skipped; the message names them. Raises `UserError` if all of them are damaged, `OtherModel`,
    `NotEnoughMemory`, or torch's error if its memory ran out; `Unreadable` if the disk can't be read: going on from an older one
    would delete the log lines after it, and later the checkpoint itself, which may be whole.
    """
    skipped = ""
    for step, folder in reversed(_all_saved(run)):
        if most is not None and step > most:
            continue
        try:
            record = intact.check(folder)
            saved = checkpoint.load(folder)
            _check_model(run, folder, saved, model)
            state = load_file(folder / "optimizer.safetensors")
            if int(record["step"]) != step:
                raise UserError("its training.json is of another step")
            settings = run.config().settings
            _check_state(model, state, settings.optimizer)
            if settings.ema_decay and AVERAGE_UPDATES not in state:
                raise UserError("it lacks the weights that are trained")
            state = _loaded_state(state, saved)
            # Copy the values: the loaded tensors are views of the mapped file with arbitrary alignment, and dropout
            # must be the run's, not that of the folder.
            model.load_state_dict(saved.state_dict())
            return step, {name: tensor.clone() for name, tensor in state.items()}, skipped
        except (OtherModel, NotEnoughMemory):  # so are those before it; what is short of memory is not damaged
            raise
        except (UserError, SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if is_short(error):
                raise
            if _gone(folder):  # the live worker of a run that is only read has dropped it meanwhile
                continue
            if is_unreadable(error):
                raise Unreadable(
                    f"checkpoint-{step}: {in_one_line(error)}. Nothing was changed: try again once the disk can be read, or move "
                    f"{folder} away to go on from an earlier step"
                ) from error
            skipped += f"checkpoint-{step} is damaged and was skipped ({' '.join(str(error).split())[:300]}). "
    if skipped:
        raise UserError(f"{skipped}{NONE_LEFT}")
    return None


def _all_saved(run: Run) -> list[tuple[int, Path]]:
    """`run.list_saved`. Raises `Unreadable` if the folder can't be listed: without a checkpoint, the run would begin again."""
    try:
        return run.list_saved()
    except OSError as error:
        raise Unreadable(
            f"can't read {run.path}: {error.strerror or error}. Nothing was changed: try again once the disk can be read"
        ) from error


def _gone(folder: Path) -> bool:
    try:
        folder.stat()
    except OSError as error:
        return not is_unreadable(error)
    return False


def _check_model(run: Run, folder: Path, saved: GPT, model: GPT) -> None:
    """Raises `OtherModel` if a checkpoint is of another model than the run's settings describe, as after a change by hand."""
    for name in COMPUTES:
        mine, theirs = getattr(model.config, name), getattr(saved.config, name)
        if mine != theirs:
            raise OtherModel(
                f"{folder.name} of run {run.name} has {name} {theirs}, but its config.json now describes a model with {mine}: put "
                "back what was changed there, or start a new run"
            )


def other_arithmetic(run: Run, trainer: Trainer, step: int) -> str:
    """A message if the checkpoint of `step` was computed in another way than `trainer` computes: by other code, such as on a
    machine without a compiler, or in another precision. Empty if not, or if the checkpoint does not say."""
    with suppress(UserError, OSError):
        record = read_json(run.path / f"checkpoint-{step}" / intact.RECORD)
        before = record.get("arithmetic") if isinstance(record, dict) else None
        if isinstance(before, str) and before != trainer.arithmetic:
            return (
                f"continues in {trainer.arithmetic}; before in {visible(before)}: not bit for bit as without a stop. "
            )
    return ""


def seconds_used(run: Run, step: int) -> float:
    """The seconds that a run with a time budget had used at the checkpoint of `step`; 0 if that does not say."""
    with suppress(UserError, OSError):
        record = read_json(run.path / f"checkpoint-{step}" / intact.RECORD)
        return max(0.0, number(record.get("seconds")) or 0.0) if isinstance(record, dict) else 0.0
    return 0.0


def kept_state(model: GPT, optimizer: str) -> dict[str, tuple[str, ...]]:
    """Returns for each parameter the names of its optimizer state."""
    by_muon = {id(p) for p in model.matrices()} if optimizer == "muon" else set()
    return {
        name: ("momentum_buffer",) if id(p) in by_muon else ("step", "exp_avg", "exp_avg_sq")
        for name, p in model.weights()
    }


def fresh_state(model: GPT, optimizer: str) -> dict[str, torch.Tensor]:
    """Returns the optimizer state before the first update, as full CPU tensors: zeros."""
    sizes = {name: p.shape for name, p in model.weights()}
    return {
        f"{name}.{key}": torch.zeros(() if key == "step" else sizes[name])
        for name, keys in kept_state(model, optimizer).items()
        for key in keys
    }


def _check_state(model: GPT, state: dict[str, torch.Tensor], optimizer: str) -> None:
    kept = kept_state(model, optimizer)
    for name, parameter in model.weights():
        for key in kept[name]:
            tensor = state.get(f"{name}.{key}")
            if tensor is None or (key != "step" and tensor.shape != parameter.shape):
                raise UserError(f"its optimizer state lacks {name}.{key}, or has another shape")


def restore(trainer: Trainer, state: dict[str, torch.Tensor] | None) -> None:
    """Loads the optimizers' state, as returned by `load_newest`. Only rank 0 needs to pass it."""
    kept = kept_state(trainer.model, trainer.settings.optimizer)
    names = {id(p): name for name, p in trainer.model.weights()}
    for optimizer in trainer.optimizers:
        if isinstance(optimizer, FlatAdamW):  # a single process, which has the state
            optimizer.load_named_state(state or {})
            continue
        for group in optimizer.param_groups:
            for p in group["params"]:
                name = names[id(p)]
                optimizer.state[p] = {}
                for key in kept[name]:
                    blank = torch.empty(() if key == "step" else p.shape)
                    value = trainer.ranks.broadcast_tensor(state[f"{name}.{key}"] if state else blank)
                    # AdamW keeps `step` on the CPU, except for fused AdamW on a GPU.
                    value = value.to("cpu" if key == "step" and trainer.device.type != "cuda" else trainer.device)
                    optimizer.state[p][key] = part_like(value, p)
    _restore_average(trainer, state)


def _restore_average(trainer: Trainer, state: dict[str, torch.Tensor] | None) -> None:
    """Loads the average of the weights. Where a branch begins to have one, it begins with the weights themselves."""
    average, ranks = trainer.average, trainer.ranks
    known = state is not None and AVERAGE_UPDATES in state
    if average is None or not ranks.broadcast_int(int(known)):
        return
    updates = ranks.broadcast_int(int(state[AVERAGE_UPDATES]) if state is not None else 0)
    tensors = {
        name: part_like(
            ranks.broadcast_tensor(state[f"{name}.average"] if state is not None else torch.empty(p.shape)).to(
                p.device
            ),
            p,
        )
        for name, p in trainer.model.weights()
    }
    average.load(tensors, updates)


def gathered(trainer: Trainer) -> Trainer:
    """Returns a trainer whose model a single process can use.

    That is `trainer` itself, or with sharded weights a copy whose model has the full weights on the CPU. All processes
    must call it; only rank 0's result may be used.
    """
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
    view.losses = view.model.losses
    return view
