"""Write a conversation in the model's chat template, and draw tokens of the answer."""

from __future__ import annotations

from collections.abc import Callable

from tui_llm.common.errors import UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.chat.question import ChatPart, ChatQuestion
from tui_llm.session.continuation import continuation
from tui_llm.session.open_model import OpenModel

NO_TEMPLATE = (
    "{0} has no chat template, it is a base model: make an instruct copy of it, which has one (tui-llm train PAIRS.jsonl "
    "--instruct --from {0}; the tour makes one, too), or open a chat model"
)


@answers(ChatQuestion)
def answer(open_model: OpenModel, question: ChatQuestion, overtaken: Callable[[], bool]) -> ChatPart:
    """Raises `UserError` if the model has no chat template or that fails, and `Overtaken`."""
    template, weights = open_model.chat_template, open_model.weights()
    if template is None:
        raise UserError(NO_TEMPLATE.format(weights.name))
    ids = template.encode_conversation(question.messages, open_model.tokenizer)
    if not ids:
        raise UserError("the message is empty; type some text")
    tokens = tuple(
        continuation(
            open_model,
            [*ids, *question.answer],
            question.request.sampler,
            seed=question.seed,
            count=question.count,
            overtaken=overtaken,
            drawn=question.answer,
        )
    )
    length = len(ids) + len(question.answer) + len(tokens)
    text = "".join(piece for piece, _ in template.conversation(question.messages))
    ended = bool(tokens) and tokens[-1].ends
    typed = template.typed_special(question.messages, open_model.tokenizer)
    return ChatPart(weights, text, tuple(ids), max(0, length - weights.context), tokens, ended, typed)
