"""`tui-llm train PAIRS --from MODEL --instruct`: a small supervised fine-tuning, in this process."""

from __future__ import annotations

import argparse

from tui_llm.commands.output import put, put_json
from tui_llm.commands.parser import TRAINING_OPTIONS
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.paths import expand
from tui_llm.facts.request import Request
from tui_llm.instruments.instruct.question import LEARNING_RATE, STEPS, Instructed, InstructQuestion
from tui_llm.llm.data import instruction_pairs

TAKEN = ("steps", "learning_rate")  # of the options for training
NOT_TAKEN = ("preset", "nproc", "shard", "pin", "resume", "detach", "no_start", "cost", "measure", "tensorboard")


def instruct(options: argparse.Namespace) -> int:
    """Raises `UserError` where something is said that this can't take, or the pairs can't be read."""
    names = [name.replace("-", "_") for name in TRAINING_OPTIONS if name.replace("-", "_") not in TAKEN]
    said = [name for name in (*names, *NOT_TAKEN) if getattr(options, name, None) not in (None, False)]
    if said:
        raise UserError(
            f"--instruct takes --from, --run, --steps and --learning-rate; leave out --{said[0].replace('_', '-')}"
        )
    if options.from_model is None:
        raise UserError("--instruct goes on from a trained model; name it: --from nano")
    if len(options.corpus) != 1:
        raise UserError(f"--instruct takes one file of pairs, not {len(options.corpus)}: a .jsonl or .tsv")
    steps, rate = _number(options.steps, STEPS, "steps"), _number(options.learning_rate, LEARNING_RATE, "learning rate")
    pairs = instruction_pairs.read(expand(options.corpus[0]))
    from tui_llm.engine import PipelineEngine

    engine = PipelineEngine(options.device or "auto")
    engine.open(options.from_model)
    told: Instructed = engine.answer(InstructQuestion(Request(), pairs, int(steps), rate, options.run or ""))
    if options.json:
        put_json({
            "model": told.name, "folder": told.folder, "from": told.weights.name, "pairs": len(pairs), "steps": len(told.losses),
            "learning_rate": rate, "tokens": told.tokens, "answer_tokens": told.answer_tokens,
            "loss_before": told.before, "loss_after": told.after, "losses": list(told.losses),
        })  # fmt: skip
        return 0
    put(
        f"{len(told.losses)} steps on {len(pairs)} pairs, loss on {told.answer_tokens} of {told.tokens} tokens (the answers): "
        f"{told.before:.4f} → {told.after:.4f} nats a token\nkept as the model folder {visible(told.folder)}; "
        f"a question alone is its prompt: tui-llm generate {visible(repr(pairs[0].question))} --model {visible(told.name)}"
    )
    return 0


def _number(said: str | None, usual: float, name: str) -> float:
    if said is None:
        return usual
    try:
        return float(said) if name != "steps" else int(said)
    except ValueError:
        raise UserError(f"{name} is {said!r}; give a number, such as {usual:g}") from None
