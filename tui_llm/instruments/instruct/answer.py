"""Fine-tune a copy on instruction–answer pairs and write it as a model folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

from tui_llm.common import paths
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.instruct.question import LONGEST, MOST_STEPS, STEPS, Instructed, InstructQuestion
from tui_llm.instruments.learn.model_folder import new_folder, writable, write_model
from tui_llm.llm.adapters.chat import INSTRUCT
from tui_llm.llm.learn import instruct
from tui_llm.llm.learn.instruct import Tuner
from tui_llm.session.open_model import OpenModel

LARGEST_RATE = 1.0
FREE_NAMES = 1000  # names to try


@dataclass
class _TuningSession:
    asked: tuple[object, ...]
    tuner: Tuner
    examples: list[instruct.Example]


@answers(InstructQuestion)
def answer(open_model: OpenModel, question: InstructQuestion, overtaken: Callable[[], bool]) -> Instructed:
    """Raises `UserError` if there is nothing to learn, a setting is out of range, the loss diverges, or the folder
    can't be written."""
    if not question.pairs:
        raise UserError("there are no pairs to learn; write some, each as QUESTION => ANSWER")
    if not 1 <= question.steps <= MOST_STEPS:
        raise UserError(f"{question.steps} steps; give 1 to {MOST_STEPS:,}")
    if not (math.isfinite(question.learning_rate) and 0 < question.learning_rate <= LARGEST_RATE):
        raise UserError(f"the learning rate is {question.learning_rate:g}; give one above 0 and up to {LARGEST_RATE:g}")
    name = question.name or _free_name()
    new_folder(name)  # check the name before training
    session = _session(open_model, question)
    after = session.tuner.go(question.steps, overtaken)
    while question.learned is not None and after > question.learned and len(session.tuner.losses) < LONGEST:
        after = session.tuner.go(min(len(session.tuner.losses) + STEPS, LONGEST), overtaken)
    result = Instructed(
        question,
        open_model.weights(),
        name,
        str(new_folder(name)),
        sum(len(one.inputs) + 1 for one in session.examples),
        sum(one.answer_tokens for one in session.examples),
        session.tuner.losses[0],
        after,
        tuple(session.tuner.losses),
    )
    write_model(writable(open_model), session.tuner.model, name, _card(result), chat=INSTRUCT)
    open_model.remembered.pop("instruct", None)
    return result


def _session(open_model: OpenModel, question: InstructQuestion) -> _TuningSession:
    asked = question.pairs, question.learning_rate, question.learned
    known = open_model.remembered.get("instruct")
    if (
        isinstance(known, _TuningSession)
        and known.asked == asked
        and (question.learned is not None or len(known.tuner.losses) <= question.steps)
    ):
        return known
    examples = [instruct.example(pair, writable(open_model), open_model.gpt.config.context) for pair in question.pairs]
    with instruct.enough_memory():
        tuner = Tuner(open_model.gpt, examples, open_model.tokenizer.size, question.learning_rate)
    open_model.remembered["instruct"] = made = _TuningSession(asked, tuner, examples)
    return made


def _free_name() -> str:
    tops = paths.models_dir(), paths.runs_dir(), paths.shipped_models_dir()
    names = ("assistant", *(f"assistant-{number}" for number in range(2, FREE_NAMES)))
    found = next((name for name in names if not any(os.path.lexists(top / name) for top in tops)), None)
    if found is None:
        raise UserError(f"{FREE_NAMES} assistants already exist; delete some in {paths.models_dir()}")
    return found


def _card(result: Instructed) -> str:
    question, weights = result.question, result.weights
    rows = "\n".join(f"| {_cell(pair.question)} | {_cell(pair.answer)} |" for pair in question.pairs)
    return f"""# {visible(result.name)}

{visible(weights.name)} after {len(result.losses)} steps of supervised fine-tuning on {len(question.pairs)} instruction–answer pairs: an
experiment of tui-llm, not an assistant to rely on. It knows these by heart, and little else has changed for the better.
Its licence and its training text are those of {visible(weights.name)}.

The loss is on the answers alone ({result.answer_tokens} of {result.tokens} tokens, each answer's end included): {result.before:.4f} nats a token before,
{result.after:.4f} after. AdamW, learning rate {question.learning_rate:g}, all pairs in every batch. A question is followed by a line break, then the answer.

| question | answer |
|---|---|
{rows}
"""


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|")
