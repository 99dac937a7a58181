"""Reward: groups of answers, scored and learned by policy gradient, on a copy of the weights that is kept as long as the
model is open."""

from __future__ import annotations

from collections.abc import Callable

from tui_llm.common.errors import UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.learn.model_folder import chat_text, new_folder, trainable, writable, write_model
from tui_llm.instruments.reward.question import (
    MOST_STEPS,
    RewardQuestion,
    RewardRun,
    SavedRewarded,
    SaveRewardedQuestion,
)
from tui_llm.instruments.reward.saved import card
from tui_llm.instruments.reward.session import RewardSession
from tui_llm.llm.learn.reward import parse
from tui_llm.llm.predict.draw_group import check_room
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.session.messages import NOTHING
from tui_llm.session.open_model import OpenModel

_KEY = "reward"
TEXT_SHOWN = 200  # tokens at the prompt's end


@answers(RewardQuestion)
def reward(open_model: OpenModel, question: RewardQuestion, overtaken: Callable[[], bool]) -> RewardRun:
    """Raises `UserError` if the prompt is empty or leaves no room for answers, the rule is wrong or takes too long, a
    reward is not finite, or a step can't be taken. The open model is never changed."""
    rule = parse(question.spec) if question.score is None else None
    trainable(open_model)
    ids = open_model.ids(question.request)
    if not ids:
        raise UserError(NOTHING)
    check_room(len(ids), question.recipe.tokens, open_model.gpt.config.context)
    session = _session(open_model, tuple(ids), fresh=question.fresh)
    at = len(session.groups) if question.at is None else question.at
    if not 0 <= at <= MOST_STEPS:
        raise UserError(f"{at} steps; up to {MOST_STEPS} can be taken here: for more, `tui-llm train --reward`")
    session.move_to(question, at, rule, overtaken)
    ahead = question.ahead or not session.groups
    group = session.ahead(question, rule, overtaken) if ahead else session.groups[-1]
    return RewardRun(
        question,
        open_model.weights(),
        token_text(b"".join(open_model.token(id).bytes for id in ids[-TEXT_SHOWN:])),
        tuple(one.step for one in session.groups),
        group,
        ahead,
        session.copy.bytes,
        *session.copy.stored,
    )


def _session(open_model: OpenModel, ids: tuple[int, ...], *, fresh: bool) -> RewardSession:
    """The session of this prompt, else a new one, which replaces it."""
    if fresh:
        return RewardSession(open_model, ids)
    known = open_model.remembered.get(_KEY)
    if not (isinstance(known, RewardSession) and known.ids == ids):
        open_model.remembered[_KEY] = known = RewardSession(open_model, ids)
    return known


@answers(SaveRewardedQuestion)
def save(open_model: OpenModel, question: SaveRewardedQuestion, overtaken: Callable[[], bool]) -> SavedRewarded:
    """Raises `UserError` if no step has moved the weights, or the folder can't be made."""
    session = _session(open_model, tuple(open_model.ids(question.request)), fresh=False)
    if not any(group.step.learned for group in session.groups):
        raise UserError("there is nothing to save yet: take a step first")
    name = new_folder(question.name, force=question.force).name
    text = card(open_model, name, session.ids, [group.step for group in session.groups])
    chat = chat_text(open_model)
    folder = write_model(writable(open_model), session.copy.model, question.name, text, force=question.force, chat=chat)
    return SavedRewarded(folder.name, str(folder), len(session.groups))
