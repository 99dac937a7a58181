"""Ghost text by greedy decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.answers import answers
from tui_llm.instruments.ghost.question import Ghost, GhostQuestion
from tui_llm.llm.predict.distribution import process
from tui_llm.llm.tokens.token_bytes import pieces
from tui_llm.session.open_model import OpenModel

_GREEDY = SamplerSettings(temperature=0)


@answers(GhostQuestion)
def answer(open_model: OpenModel, question: GhostQuestion, overtaken: Callable[[], bool]) -> Ghost:
    """Without pieces if there is nothing to continue or the model's logits are invalid."""
    request = dataclasses.replace(question.request, position=None)
    context = open_model.weights().context
    made: list[int] = []
    try:
        room = context - len(open_model.ids(request)) + 1  # the last token is predicted, not fed
        while len(made) < min(question.count, max(1, room)):
            if overtaken():
                raise Overtaken
            now = dataclasses.replace(request, continuation=(*request.continuation, *made))
            id = int(process(open_model.logits(now, overtaken), _GREEDY).order[0])
            if open_model.tokenizer.ends(id):
                break
            made.append(id)
    except UserError:  # an empty text or a diverged model: the reading reports it
        made = []
    before = open_model.ids(request)[-1:] if made else []
    tokens = [open_model.bytes_of(id, previous) for previous, id in zip([*before, *made], made, strict=False)]
    whole: list[str] = []
    for start, stop, text in pieces(tokens):
        try:
            b"".join(tokens[start:stop]).decode()
        except UnicodeDecodeError:
            break
        whole.append(text)
    return Ghost(open_model.weights(), tuple(whole))
