"""Fine-tune a copy on instruction–answer pairs and write it as a model folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from tui_llm.common import paths
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted
from tui_llm.instruments.answers import answers
from tui_llm.instruments.learn.model_folder import new_folder, trainable, writable, write_model
from tui_llm.instruments.sft.question import (
    ANSWER_TOKENS,
    ANSWERED,
    LONGEST,
    MOST_STEPS,
    STEPS,
    Instructed,
    InstructQuestion,
    PairsFileQuestion,
    SftQuestion,
    SftState,
    TunedPair,
)
from tui_llm.llm.adapters.chat import INSTRUCT
from tui_llm.llm.data import instruction_pairs
from tui_llm.llm.data.instruction_pairs import Pair
from tui_llm.llm.learn import instruct
from tui_llm.llm.learn.instruct import Tuner
from tui_llm.llm.learn.undoable import enough_memory
from tui_llm.llm.model.model import GPT
from tui_llm.session.open_model import OpenModel

LARGEST_RATE = 1.0
FREE_NAMES = 1000  # names to try


@dataclass
class _TuningSession:
    asked: tuple[object, ...]
    tuner: Tuner
    examples: list[instruct.Example]
    before: list[list[float]] = field(default_factory=list)  # the open model's token losses
    answers: list[str | None] = field(default_factory=list)  # its answers


@answers(InstructQuestion)
def answer(open_model: OpenModel, question: InstructQuestion, overtaken: Callable[[], bool]) -> Instructed:
    """Raises `UserError` if there is nothing to learn, a setting is out of range, the loss diverges, or the folder
    can't be written."""
    _check(question.pairs, question.steps, question.learning_rate)
    if question.steps < 1:
        raise UserError(f"{question.steps} steps; give 1 to {MOST_STEPS:,}")
    name = question.name or _free_name()
    new_folder(name, force=question.force)  # check the name before training
    session = _session(open_model, question)
    done = len(session.tuner.losses) if question.learned is not None else 0  # an interrupted call's
    after = session.tuner.move_to(max(question.steps, done), overtaken)
    while question.learned is not None and after > question.learned and len(session.tuner.losses) < LONGEST:
        after = session.tuner.go(min(len(session.tuner.losses) + STEPS, LONGEST), overtaken)
    result = Instructed(
        question,
        open_model.weights(),
        name,
        str(new_folder(name, force=question.force)),
        sum(len(one.inputs) + 1 for one in session.examples),
        sum(one.answer_tokens for one in session.examples),
        session.tuner.losses[0],
        after,
        tuple(session.tuner.losses),
    )
    card = _card(result)
    write_model(writable(open_model), session.tuner.model, name, card, force=question.force, chat=INSTRUCT)
    open_model.remembered.pop("instruct", None)
    return result


def _check(pairs: tuple[Pair, ...], steps: int, learning_rate: float) -> None:
    if not pairs:
        raise UserError("there are no pairs to learn; write some, each as QUESTION => ANSWER")
    if not 0 <= steps <= MOST_STEPS:
        raise UserError(f"{steps} steps; give 1 to {MOST_STEPS:,}")
    if not (math.isfinite(learning_rate) and 0 < learning_rate <= LARGEST_RATE):
        raise UserError(f"the learning rate is {learning_rate:g}; give one above 0 and up to {LARGEST_RATE:g}")


def _session(open_model: OpenModel, question: InstructQuestion) -> _TuningSession:
    """That of the SFT screen if it is for the same pairs, else one that lasts until the folder is written."""
    shown = open_model.screen_cache.get("sft")
    if question.learned is None and isinstance(shown, _TuningSession) and shown.asked == _asked(question):
        return shown
    asked = *_asked(question), question.learned
    known = open_model.remembered.get("instruct")
    if (
        isinstance(known, _TuningSession)
        and known.asked == asked
        and (question.learned is not None or len(known.tuner.losses) <= question.steps)
    ):
        return known
    open_model.remembered["instruct"] = made = _new_session(open_model, question, asked)
    return made


def _asked(question: InstructQuestion | SftQuestion) -> tuple[object, ...]:
    return question.pairs, question.learning_rate


def _new_session(
    open_model: OpenModel, question: InstructQuestion | SftQuestion, asked: tuple[object, ...], *, undo: bool = False
) -> _TuningSession:
    model = trainable(open_model)
    examples = [instruct.example(pair, writable(open_model), model.config.context) for pair in question.pairs]
    with enough_memory(16 * model.config.parameters(), instruct.FEWER):
        tuner = Tuner(model, examples, open_model.tokenizer.size, question.learning_rate, undo=undo)
    return _TuningSession(asked, tuner, examples)


# ── step by step ──


@answers(SftQuestion)
def state(open_model: OpenModel, question: SftQuestion, overtaken: Callable[[], bool]) -> SftState:
    """Raises `UserError` as `answer` does, and `Overtaken`: the steps taken until then stay."""
    _check(question.pairs, question.at, question.learning_rate)
    known = open_model.screen_cache.get("sft")
    if not (isinstance(known, _TuningSession) and known.asked == _asked(question)):
        open_model.screen_cache.pop("sft", None)  # freed before another copy is made
        known = _new_session(open_model, question, _asked(question), undo=True)
        open_model.screen_cache["sft"] = known
    tuner = known.tuner
    loss = tuner.move_to(question.at, overtaken)
    if not known.before:
        known.before = tuner.token_losses(tuner.origin)
    after = tuner.token_losses(tuner.model) if question.at else known.before
    mine: list[str | None] = []
    if question.answers:
        if not known.answers:
            known.answers = _answers(open_model, tuner.origin, question.pairs, overtaken)
        mine = [*(_answers(open_model, tuner.model, question.pairs, overtaken) if question.at else known.answers)]
    missing: list[str | None] = [None] * len(question.pairs)
    base, mine = ([*answers, *missing] for answers in (known.answers, mine))
    shown = []
    for at, pair in enumerate(question.pairs):
        ids = [id for id in known.examples[at].targets if id != instruct.IGNORE]
        tokens = tuple(open_model.token(id) for id in ids)
        shown.append(TunedPair(pair, tokens, tuple(known.before[at]), tuple(after[at]), base[at], mine[at]))
    count = sum(len(costs) for costs in known.before)
    return SftState(
        question,
        open_model.weights(),
        tuple(shown),
        sum(len(one.inputs) + 1 for one in known.examples),
        count,
        math.fsum(map(math.fsum, known.before)) / count,
        loss,
        tuple(tuner.losses),
    )


def _answers(
    open_model: OpenModel, model: GPT, pairs: tuple[Pair, ...], overtaken: Callable[[], bool]
) -> list[str | None]:
    """The greedy answers of `model` to the first questions."""
    vocabulary = open_model.tokenizer
    asked = [instruct.prompt(pair.question, vocabulary) for pair in pairs[:ANSWERED]]
    with enough_memory(16 * model.config.parameters(), instruct.FEWER):
        made = instruct.greedy_answers(model, asked, vocabulary.size, vocabulary.ends, ANSWER_TOKENS, overtaken)
    return [vocabulary.decode(ids, before[-1]) for ids, before in zip(made, asked, strict=True)]


@answers(PairsFileQuestion)
def pairs_of_file(_open_model: OpenModel, question: PairsFileQuestion, _overtaken: object) -> tuple[Pair, ...]:
    """Raises `UserError` if the file can't be read, or a line is not a pair."""
    return instruction_pairs.read(paths.expand(question.path))


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

{visible(weights.name)} after {counted(len(result.losses), "step")} of supervised fine-tuning on {counted(len(question.pairs), "instruction–answer pair")}: an
experiment of tui-llm, not an assistant to rely on. It has memorized these pairs; on other questions expect no improvement.
Its licence and its training text are those of {visible(weights.name)}.

The loss is on the answers alone ({result.answer_tokens} of {result.tokens} tokens, each answer's end included): {result.before:.4f} nats a token before,
{result.after:.4f} after. AdamW, learning rate {question.learning_rate:g}, all pairs in every batch. A question is followed by a line break, then the answer.

| question | answer |
|---|---|
{rows}
"""


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|")
