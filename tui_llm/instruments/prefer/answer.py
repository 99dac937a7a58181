"""Prefer: choices learned by DPO on a copy of the weights, which is kept as long as the model is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tui_llm.common.errors import UserError
from tui_llm.facts.preference import RankedPair
from tui_llm.facts.tokens import Token
from tui_llm.instruments.answers import answers
from tui_llm.instruments.learn.model_folder import chat_text, new_folder, trainable, writable, write_model
from tui_llm.instruments.prefer.draws import two_answers
from tui_llm.instruments.prefer.question import (
    MOST_PAIRS,
    AnswersQuestion,
    PreferQuestion,
    Preferred,
    PreferTextQuestion,
    SavedPreferred,
    SavePreferredQuestion,
    TwoAnswers,
)
from tui_llm.instruments.prefer.saved import PairsFile, as_text, card
from tui_llm.llm.learn.preference_learner import PreferenceLearner
from tui_llm.session.messages import NOTHING
from tui_llm.session.open_model import OpenModel

_KEY = "prefer"


@dataclass
class _RankingSession:
    learner: PreferenceLearner
    file: PairsFile = field(default_factory=PairsFile)


def _learner(open_model: OpenModel) -> PreferenceLearner:
    return PreferenceLearner(trainable(open_model), open_model.tokenizer.size)


def _session(open_model: OpenModel) -> _RankingSession:
    known = open_model.remembered.get(_KEY)
    if not isinstance(known, _RankingSession):
        open_model.remembered[_KEY] = known = _RankingSession(_learner(open_model))
    return known


@answers(AnswersQuestion)
def draw(open_model: OpenModel, question: AnswersQuestion, overtaken: Callable[[], bool]) -> TwoAnswers:
    """Raises `UserError` as `two_answers` does, and if the model can't be trained."""
    learner = _session(open_model).learner
    learner.move_to(question.ranked, overtaken)
    return two_answers(open_model, question, learner, overtaken)


@answers(PreferQuestion)
def prefer(open_model: OpenModel, question: PreferQuestion, overtaken: Callable[[], bool]) -> Preferred:
    """Raises `UserError` if a pair can't be learned; pairs that could not be written are learned all the same."""
    session = _session(open_model)
    unsaved = ""
    if question.ranked is not None:
        if len(question.ranked) > MOST_PAIRS:
            raise UserError(f"{len(question.ranked)} pairs; up to {MOST_PAIRS} can be ranked here: for more, `tui-llm train --preference`")  # fmt: skip
        for one in question.ranked[len(session.learner.ranked) :]:
            as_text(open_model.tokenizer, one)  # whether it is a pair: before it is written
        if question.file:
            try:
                session.file.update(open_model.tokenizer, question.file, question.ranked)
            except UserError as error:
                unsaved = str(error)
        session.learner.move_to(question.ranked, overtaken)
    return _preferred(open_model, question, session.learner, session.file.path, unsaved)


def _preferred(
    open_model: OpenModel,
    question: PreferQuestion | PreferTextQuestion,
    learner: PreferenceLearner,
    file: str,
    unsaved: str,
) -> Preferred:
    last = learner.ranked[-1] if learner.ranked else None

    def tokens(ids: Sequence[int]) -> tuple[Token, ...]:
        assert last is not None
        before = [last.prompt[-1], *ids]
        return tuple(open_model.token(id, previous) for id, previous in zip(ids, before, strict=False))

    return Preferred(
        question,
        open_model.weights(),
        tuple(learner.ranked),
        tuple(learner.changes),
        tokens(last.chosen) if last else (),
        tokens(last.rejected) if last else (),
        *learner.stored,
        file,
        unsaved,
    )


@answers(PreferTextQuestion)
def prefer_texts(open_model: OpenModel, question: PreferTextQuestion, overtaken: Callable[[], bool]) -> Preferred:
    """Raises `UserError` if there is no prompt, or the pair can't be learned."""
    learner, tokenizer = _learner(open_model), open_model.tokenizer
    prompt = open_model.ids(question.request)
    if not prompt:
        raise UserError(NOTHING)
    allow = question.request.allow_special
    chosen, rejected = (
        tokenizer.encode_after(text, allow_special=allow) for text in (question.chosen, question.rejected)
    )
    learner.move_to([RankedPair(tuple(prompt), tuple(chosen), tuple(rejected), question.recipe)], overtaken)
    return _preferred(open_model, question, learner, "", "")


@answers(SavePreferredQuestion)
def save(open_model: OpenModel, question: SavePreferredQuestion, overtaken: Callable[[], bool]) -> SavedPreferred:
    """Raises `UserError` if nothing has been learned, or the folder can't be made."""
    learner = _session(open_model).learner
    if not question.ranked:
        raise UserError("there is nothing to save yet: choose an answer first")
    name = new_folder(question.name, force=question.force).name
    learner.move_to(question.ranked, overtaken)
    text = card(open_model, name, learner.ranked, learner.changes)
    chat = chat_text(open_model)
    folder = write_model(writable(open_model), learner.model, question.name, text, force=question.force, chat=chat)
    return SavedPreferred(folder.name, str(folder), len(learner.ranked))
