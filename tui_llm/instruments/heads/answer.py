"""Compute the head detectors' scores, on repeated random tokens or on the request's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.interventions import Intervention
from tui_llm.instruments.answers import answers
from tui_llm.instruments.heads.question import Heads, HeadsQuestion
from tui_llm.instruments.trace import place_in
from tui_llm.llm.model import head_scores
from tui_llm.llm.model.head_scores import SEQUENCES, SHORTEST, Scorer
from tui_llm.session.open_model import OpenModel

MOST_SEED = 2**32 - 1
LONGEST = 1024  # tokens of a text: the attention of one layer has heads × T² numbers


@answers(HeadsQuestion)
def answer(open_model: OpenModel, question: HeadsQuestion, overtaken: Callable[[], bool]) -> Heads:
    """Raises `UserError` if the seed or the length is out of range, the context is too short, the text has one token only, or
    the model has no attention weights."""
    start: int | None = None
    left_out: tuple[Intervention, ...] = ()
    if question.own_text:
        texts, length, sequences = [_own_text(open_model, question)], 0, 0
    else:
        if not 0 <= question.seed <= MOST_SEED:
            raise UserError(f"the seed is {question.seed}; give a whole number from 0 to {MOST_SEED:,}")
        if question.length < SHORTEST:
            raise UserError(f"the length is {question.length}; give {SHORTEST} random tokens or more")
        on = question.request.interventions
        left_out = tuple(one for one in on if one.numbered)
        open_model.intervene([one for one in on if not one.numbered])
        vocabulary = open_model.tokenizer
        start, sequences = vocabulary.start, SEQUENCES
        ids = head_scores.ordinary(vocabulary.size, vocabulary.is_special)
        length = head_scores.room(open_model.weights().context, question.length, len(ids), start)
        texts = [head_scores.repeated(ids, length, question.seed * SEQUENCES + nth, start) for nth in range(SEQUENCES)]
    scorer = _scores(open_model, texts, overtaken)
    return Heads(
        question,
        open_model.weights(),
        scorer.scores(),
        scorer.counts,
        length,
        sequences,
        None if start is None else open_model.token(start),
        left_out,
    )


def _own_text(open_model: OpenModel, question: HeadsQuestion) -> list[int]:
    fed, place = place_in(open_model, question.request, None)
    if len(fed) < SHORTEST:
        raise UserError("one token has no earlier ones to attend to: type more text, or use random tokens")
    open_model.begins_at(place.count - min(len(fed), LONGEST))
    return fed[-LONGEST:]


def _scores(open_model: OpenModel, texts: Sequence[Sequence[int]], overtaken: Callable[[], bool]) -> Scorer:
    from tui_llm.llm.adapters.causal import CausalPredictor

    predictor = open_model.window.predictor
    if not isinstance(predictor, CausalPredictor):
        return head_scores.score(open_model.gpt, texts, overtaken)
    scorer = Scorer()
    for ids in texts:
        if overtaken():
            raise Overtaken
        scorer.add(ids, predictor.attentions(ids))
    return scorer
