"""`torch.compile` for the training step, where it pays. The model itself stays as it is, and so do its weights' names."""

from __future__ import annotations

import importlib.util

import torch

from tui_llm.training.worker.loop import Trainer


def wanted(choice: str, device: torch.device) -> bool:
    """`auto` compiles for CUDA where triton is there: elsewhere nobody has measured
    that it pays, and on a CPU compiling alone can take minutes."""
    if choice == "auto":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return choice == "on"


def compile_step(trainer: Trainer, number: int) -> str:
    """Compiles what step `number` is about to run, by running it once without an update. Returns what to tell where that
    fails: the step then stays as it was, only slower. Out of memory is an error all the same."""
    plain = trainer.loss
    trainer.loss = torch.compile(plain, dynamic=False)
    try:
        trainer.model.train()
        x, y = trainer.batches.batch((number - 1) * trainer.settings.accumulation)
        with trainer.autocast():
            loss = trainer.loss(x.to(trainer.device), y.to(trainer.device))
        loss.backward()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a missing compiler, an unsupported card, …: dozens of kinds, none of them ours
        trainer.loss = plain
        first = " ".join(str(error).split())[:160]
        return f"torch.compile failed and is left out ({type(error).__name__}: {first})"
    finally:
        trainer.model.zero_grad(set_to_none=True)
    return ""
