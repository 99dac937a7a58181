"""Read the pins: the next-token distribution after each prompt, and the loss of the target.

The numbers are those of the engine's Reading of the same checkpoint: softmax of the logits, and teacher-forced losses
(`llm/predict/loss.py`), in float32. No random numbers are drawn, so that pins do not change the training at all.
"""

from __future__ import annotations

import torch

from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.llm.model.device import threads
from tui_llm.llm.model.model import GPT
from tui_llm.llm.predict import distribution
from tui_llm.llm.predict.forced import forced_logits
from tui_llm.llm.predict.loss import token_losses
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.session.tokenization import bytes_of
from tui_llm.training.run import jsonl, pin_readings, pins
from tui_llm.training.run.pin_readings import PinCandidate, PinEvaluation, PinReading, PinTargetToken
from tui_llm.training.run.pins import LONGEST
from tui_llm.training.run.run import Run
from tui_llm.training.worker.loop import Trainer

TOP = 10  # number of most probable tokens to record
LONGEST_TARGET = 64  # tokens: with a full context, each needs its own forward pass


def write(run: Run, trainer: Trainer, tokenizer: Tokenizer, step: int) -> None:
    """Appends the predictions after `step` steps for the run's pins.

    A pins file that can't be read is recorded as a problem.
    """
    try:
        wanted = pins.of_run(run)
    except UserError as error:
        wanted, problem = [Pin(trainer.settings.sample_prompt)], str(error)
    else:
        problem = ""
    trainer.model.eval()
    found = [read(trainer.model, tokenizer, pin) for pin in wanted]
    if problem:
        found = [PinReading(one.pin, one.entropy, one.candidates, one.tokens, problem) for one in found]
    jsonl.append_to(run.pin_readings_path, pin_readings.line(PinEvaluation(step, tuple(found))))


def begin(run: Run, trainer: Trainer, tokenizer: Tokenizer) -> None:
    """Records the untrained model at step 0, unless an earlier worker has done so."""
    if not pin_readings.evaluations(run):
        write(run, trainer, tokenizer, 0)


def read(model: GPT, tokenizer: Tokenizer, pin: Pin) -> PinReading:
    """Returns the predictions of `model` (in `eval` mode) for a pin. Never raises because of the pin's text."""
    try:
        pins.check(pin)
        ids = tokenizer.encode(pin.prompt)
        wanted = tokenizer.encode_after(pin.target) if pin.target else []
    except UserError as error:
        return PinReading(Pin(pin.prompt[:LONGEST], (pin.target or "")[:LONGEST] or None), problem=str(error))
    problem = ""
    if len(ids) > (context := model.config.context):
        problem = f"the model's context is {context} tokens: it sees the last {context} of the prompt's {len(ids):,}"
    if len(wanted) > LONGEST_TARGET:
        problem = f"the target has {len(wanted):,} tokens; a pin's loss is read for up to {LONGEST_TARGET}"
        wanted = []
    try:
        # a small model: with two threads, synchronizing costs more than it saves
        work = model.config.parameters() * (len(ids) + len(wanted))
        with torch.no_grad(), threads(work):
            rows = forced_logits(model, ids, wanted, tokenizer.size).cpu()
        logits = distribution.Sorted.of(rows[0])
        losses = token_losses(rows, wanted) if wanted else []
    except UserError as error:
        return PinReading(pin, problem=str(error))
    top = zip(logits.order[:TOP].tolist(), logits.raw[:TOP].tolist(), strict=True)
    return PinReading(
        pin,
        logits.entropy,
        tuple(PinCandidate(id, bytes_of(tokenizer, id), p) for id, p in top),
        tuple(PinTargetToken(t.id, bytes_of(tokenizer, t.id), t.nats, t.probability, t.rank) for t in losses),
        problem,
    )
