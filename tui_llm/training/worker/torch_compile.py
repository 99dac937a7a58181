"""`torch.compile` for the training step. The model is not changed, nor are the names of its weights."""

from __future__ import annotations

import importlib.util

import torch

from tui_llm.common.errors import in_one_line
from tui_llm.training.worker.loop import Trainer


def wanted(choice: str, device: torch.device) -> bool:
    """Whether to compile on `device`: `auto` compiles for CUDA if triton is installed.

    On a CPU the gain is small: for the shape `baby`, a step took 23.5 ms instead of 25 ms after 31 s of compiling
    (dev/LOG.md).
    """
    if choice == "auto":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return choice == "on"


def compile_step(trainer: Trainer, number: int) -> str:
    """Compiles the computation of step `number` by running it once without an update.

    Returns an empty string, or a message if compilation fails: the step then stays uncompiled. Raises out-of-memory
    errors.
    """
    plain, step = trainer.losses, trainer.fast_step
    trainer.fast_step = None  # its loss has no graph to compile
    trainer.model.head_losses = torch.compiler.disable(trainer.model.head_losses)
    trainer.losses = torch.compile(plain, dynamic=False)
    try:
        trainer.model.train()
        x, y = trainer.batches.batch((number - 1) * trainer.settings.grad_accumulation_steps)
        with trainer.autocast():
            loss, _ = trainer.losses(x.to(trainer.device), y.to(trainer.device))
        loss.backward()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # any compiler error, e.g. a missing C compiler or an unsupported GPU
        trainer.losses, trainer.fast_step = plain, step
        first = in_one_line(error)[:160]
        return f"torch.compile failed, the step is not compiled ({type(error).__name__}: {first})"
    finally:
        trainer.model.zero_grad(set_to_none=True)
    return ""
