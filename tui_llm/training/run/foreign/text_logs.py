"""What nanoGPT and nanochat print while they train, as curves.

nanoGPT (train.py), each `log_interval` steps the loss of the last of the step's `gradient_accumulation_steps` micro-batches (of
rank 0: `loss.item() * gradient_accumulation_steps`), and each `eval_interval` that of both splits:

    iter 100: loss 2.3456, time 12.34ms, mfu 1.23%
    step 250: train loss 2.1234, val loss 2.2345

nanochat (scripts/base_train.py), each step and at evaluations, with more or fewer parts by version:

    step 00010/21400 (0.05%) | loss: 9.123456 | lrm: 1.00 | dt: 512.34ms | tok/sec: 1,023,456 | mfu: 47.12 | total time: 0.09m
    Step 00250 | Validation bpb: 1.2345

nanochat's loss is a moving average (decay 0.9, without the bias of its start) of the same: the last micro-batches. Its validation
measure is bits per byte, which is no loss in nats per token and has its own chart.
"""

from __future__ import annotations

import re

from tui_llm.training.run.foreign.log_curves import LogCurves
from tui_llm.training.run.metrics import LARGEST_FLOAT, LARGEST_STEP

NANOGPT, NANOCHAT = "nanoGPT", "nanochat"

_NUMBER = r"(-?(?:\d[\d,]{0,20}(?:\.\d+)?(?:[eE][+-]?\d{1,3})?|nan|inf))"
_ITERATION = re.compile(rf"iter (\d+): loss {_NUMBER}, time {_NUMBER}ms(?:, mfu {_NUMBER}%)?\s*")
_EVALUATION = re.compile(rf"step (\d+): train loss {_NUMBER}, val loss {_NUMBER}\s*")
_STEP = re.compile(r"[Ss]tep (\d+)(?:/(\d+))?(?: \([^)]{0,20}\))? \| (.*)")
_PART = re.compile(rf"\s*([A-Za-z][\w /]{{0,30}}): {_NUMBER}(ms|m|s|%)?\b.*")
_TOKENS = re.compile(r"(?:tokens per iteration will be: |Total batch size )([\d,]{1,20})(?: =>.*)?\s*")
_FLOPS = re.compile(rf"Estimated FLOPs per token: {_NUMBER}\s*")
BEGIN = re.compile(rb"(?:iter \d+:|step \d+: train loss |[Ss]tep \d+(?:/\d+)? .{0,24}\| )")
"""How a line of these logs begins. One that begins so and can't be read is damaged; any other is text."""

_SAID = ("tokens per iteration will be: ", "Total batch size ", "Estimated FLOPs per token: ")
LEFT_OUT = ("total time", "eta", "epoch", "pq", "rg")  # of nanochat's parts


def add_line(line: bytes, into: LogCurves) -> None:
    """Adds what a line says; other lines are ignored, one that only begins like a log line is counted as damaged."""
    text = line.strip()[:2000].decode("utf-8", "replace")
    if BEGIN.match(line.lstrip()) is None:
        if text.startswith(_SAID):
            _facts(text, into)
        return
    try:
        known = _nanogpt(text, into) or _nanochat(text, into)
    except ValueError:
        known = False
    into.damaged += not known


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _nanogpt(text: str, into: LogCurves) -> bool:
    if found := _ITERATION.fullmatch(text):
        step = int(found[1][:16])
        into.kind = NANOGPT
        into.add("loss", step, _number(found[2]), "of the step's last micro-batch; nats per token")
        into.add("seconds per step", step, _number(found[3]) / 1000, "as printed")
        into.took(step, _number(found[3]) / 1000)
        if found[4] and _number(found[4]) >= 0:  # it prints −100 % until it has measured
            into.add("mfu", step, _number(found[4]), "model FLOPs utilization, %, as printed")
        return True
    if found := _EVALUATION.fullmatch(text):
        step = int(found[1][:16])
        into.kind = NANOGPT
        into.add("val_loss", step, _number(found[3]), "mean of eval_iters batches; nats per token")
        into.add("loss of the training split", step, _number(found[2]), "mean of eval_iters batches; nats per token")
        return True
    return False


def _nanochat(text: str, into: LogCurves) -> bool:
    found = _STEP.fullmatch(text)
    if found is None:
        return False
    step, known = int(found[1][:16]), False
    for part in found[3].split("|")[:24]:
        named = _PART.fullmatch(part)
        if named is None:
            continue
        name, value, unit = named[1].strip(), _number(named[2]), named[3]
        known = True
        if name in LEFT_OUT:
            continue
        if name == "dt":
            seconds = value / 1000 if unit == "ms" else value
            into.add("seconds per step", step, seconds, "as printed")
            into.took(step, seconds)
        elif name == "loss":
            what = "moving average of the steps' last micro-batches (decay 0.9), as printed"
            into.add("loss", step, value, f"{what}; nats per token")
        elif name == "Validation bpb":
            into.add(name, step, value, "bits per byte of the held-out text")
        else:
            into.add(name, step, value)
    if known:
        into.kind = NANOCHAT
        into.steps = max(into.steps, int((found[2] or "0")[:16]))
    return known


def _facts(text: str, into: LogCurves) -> None:
    """What is printed before the first step."""
    if found := _TOKENS.fullmatch(text):
        tokens = int(found[1].replace(",", "") or 0)
        into.step_tokens = tokens if 0 < tokens < LARGEST_STEP else None
    elif found := _FLOPS.fullmatch(text):
        flops = _number(found[1])
        into.flops_per_token = flops if 0 < flops <= LARGEST_FLOAT else None
