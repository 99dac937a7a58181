"""`tui-llm train PAIRS --from MODEL --instruct`: supervised fine-tuning on question–answer pairs, in this process."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared.engine import open_engine
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted
from tui_llm.common.paths import expand
from tui_llm.facts.request import Request
from tui_llm.instruments.sft.question import LEARNING_RATE, STEPS, Instructed, InstructQuestion
from tui_llm.llm.data import instruction_pairs
from tui_llm.training.run.settings import SETTINGS

TAKEN = ("from_model", "steps", "learning_rate")  # of the training settings
NOT_TAKEN = (
    "preset",
    "preference",
    "nproc",
    "shard",
    "pin",
    "resume",
    "detach",
    "no_start",
    "cost",
    "measure",
    "tensorboard",
    "branch",
    "branch_step",
    "exclude",
)


def instruct(options: argparse.Namespace) -> int:
    """Raises `UserError` where an option doesn't apply, or the pairs can't be read."""
    names = [name for name in SETTINGS if name not in TAKEN]
    given = [name for name in (*names, *NOT_TAKEN) if getattr(options, name, None) not in (None, False)]
    if given:
        raise UserError(
            f"--instruct takes --from, --run, --steps and --learning-rate; leave out --{given[0].replace('_', '-')}"
        )
    if options.from_model is None:
        raise UserError("--instruct fine-tunes a trained model; name it: --from nano")
    if len(options.corpus) != 1:
        raise UserError(f"--instruct takes one file of pairs, not {len(options.corpus)}: a .jsonl or .tsv")
    steps, rate = _number(options.steps, STEPS, "steps"), _number(options.learning_rate, LEARNING_RATE, "learning rate")
    pairs = instruction_pairs.read(expand(options.corpus[0]))
    engine = open_engine(options.from_model, options.device or "auto")
    made: Instructed = engine.answer(InstructQuestion(Request(), pairs, int(steps), rate, options.run or ""))
    if options.json:
        put_json({
            "model": made.name, "folder": made.folder, "from": made.weights.name, "pairs": len(pairs), "steps": len(made.losses),
            "learning_rate": rate, "tokens": made.tokens, "answer_tokens": made.answer_tokens,
            "loss_before": made.before, "loss_after": made.after, "losses": list(made.losses),
        })  # fmt: skip
        return 0
    put(
        f"{counted(len(made.losses), 'step')} on {counted(len(pairs), 'pair')}, loss on {made.answer_tokens} of {made.tokens} tokens (the answers): "
        f"{made.before:.4f} → {made.after:.4f} nats per token\nsaved as the model folder {visible(made.folder)}; "
        f"its prompt is a question alone: tui-llm generate {visible(repr(pairs[0].question))} --model {visible(made.name)}"
    )
    return 0


def _number(text: str | None, default: float, name: str) -> float:
    if text is None:
        return default
    try:
        return float(text) if name != "steps" else int(text)
    except ValueError:
        raise UserError(f"{name} is {text!r}; give a number, such as {default:g}") from None
