"""The Chat screen: a conversation with the open model, in its own chat template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common.display import fit, visible, visible_token
from tui_llm.common.numbers import counted, percent
from tui_llm.facts.chat import ChatMessage
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.instruments.chat.question import ChatPart, ChatQuestion, log_p, text_of
from tui_llm.llm.predict.units import bits
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.tui.instruments.open_keys import CHAT, SFT
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

PART = 4  # tokens that are drawn between two repaints
LONGEST = 200  # tokens of an answer
NUMBER = 10  # cells of a column of numbers
BASE = (
    "{} has no chat template, it is a base model: {} fine-tunes a copy that answers, as {} does; m opens a chat model"
)

OPEN = CHAT
_key = CommandFactory("chat", "Chat")
KEYS = (
    _key("chat_message", "i,enter", "message", "Type a message", "message"),
    _key("chat_tokens", "t", "tokens", "Show the tokens of each answer with raw p, ln p and bits, or hide them", "tokens"),
    _key("chat_raw", "w", "raw text", "Show the formatted text that is fed to the model, or the messages", "raw"),
    _key("chat_new", "n", "new", "Start a new conversation", "new"),
    _key("chat_stop", "x", "stop", "Stop the answer", "stop"),
    _key("chat_copy", "y", "copy", "Copy the tokens of all answers as a table (tab-separated)", "copy"),
    _key("close_chat", "escape,q,at", "back", "Stop the answer; otherwise back to the five panes", "leave", importance=WAY_OUT),
)  # fmt: skip


def has_template(context: LabContext) -> bool:
    if context.weights is not None and not context.weights.choices.chat:
        from tui_llm.tour.checks_model import tuned
        from tui_llm.tour.tour import place_of

        context.notify(BASE.format(context.weights.name, SFT.key_text, place_of(tuned)))
        return False
    return context.is_open()


@opens("chat", has_template)
class ChatScreen(FullScreen):
    shows_text = False  # a conversation: it says itself what is forgotten
    tour_name = "chat"
    TITLE_WORDS: ClassVar[str] = "Chat"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.request = context.lab.current_request()
        self.asked: list[str] = []
        self.answers: list[tuple[GeneratedToken, ...]] = []  # the last one may not be complete
        self.part: ChatPart | None = None  # the newest
        self.answering = self.show_tokens = self.show_raw = False
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.call_after_refresh(self.action_message)

    def subject(self) -> str:
        weights = self.context.weights
        return f"with {weights.name}, {fmt.sampler(self.request.sampler)}" if weights is not None else ""

    # ── the answer, in parts ──

    def action_message(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        if not self.answering:
            self.app.push_screen(AskScreen("Message", "Enter sends it · Esc cancels"), self._send)

    def _send(self, text: str | None) -> None:
        if text is None or not text.strip():
            return
        self.asked.append(text)
        self.answers.append(())
        self.part, self.answering, self.problem = None, True, ""
        self.refill()
        self._ask()

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """All but the answer that is being drawn."""
        made: list[ChatMessage] = []
        for text, tokens in zip(self.asked, self.answers, strict=True):
            made += [ChatMessage("user", text), ChatMessage("assistant", text_of(tokens))]
        return tuple(made[:-1])

    def _ask(self) -> None:
        drawn = tuple(token.id for token in self.answers[-1])
        count = min(PART, LONGEST - len(drawn))
        # Each answer has a seed of its own: otherwise all would be drawn with the same uniform numbers
        seed = self.context.lab.seed + len(self.answers) - 1
        question = ChatQuestion(self.request, self.messages, drawn, seed, count)
        self.context.questions.ask(self, question, self._take, self._fail)

    def _take(self, part: ChatPart) -> None:
        if not self.answering:
            return
        self.part = part
        self.answers[-1] += part.tokens
        self.answering = not part.ended and len(self.answers[-1]) < LONGEST
        self.refill()
        self.listing.scroll_end(animate=False)
        if self.answering:
            self._ask()

    def _fail(self, problem: str) -> None:
        self.answering, self.problem = False, problem
        self.refill()

    def action_stop(self) -> None:
        if self.answering:
            self.answering = False
            self.context.questions.forget(ChatQuestion)
            self.refill()

    def action_leave(self) -> None:
        if self.answering:
            self.action_stop()
        else:
            self.action_close()

    def action_new(self) -> None:
        self.action_stop()
        self.asked, self.answers, self.part, self.problem = [], [], None, ""
        self.refill()

    def action_tokens(self) -> None:
        self.show_tokens = not self.show_tokens
        self.refill()

    def action_raw(self) -> None:
        self.show_raw = not self.show_raw
        self.refill()

    # ── what is shown ──

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        muted = self.style("muted")
        if not self.asked:
            note = "i types a message. The model sees all messages and answers, as its chat template writes them: w shows it"
            return [], wrapped(Text(note, style=muted), width)
        lines = self._raw(width) if self.show_raw else self._turns(width)
        if self.problem:
            lines += wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        if self.part is not None and self.part.plain_words:
            lines += wrapped(Text(visible(self.part.plain_words), style=muted), width)
        if self.part is not None and self.part.forgotten:
            note = f"the first {counted(self.part.forgotten, 'token')} no longer fit the context: n starts a new conversation"
            lines += wrapped(Text(note, style=self.style("accent")), width)
        return [], lines

    def _turns(self, width: int) -> list[Text]:
        lines: list[Text] = []
        for at, (text, tokens) in enumerate(zip(self.asked, self.answers, strict=True)):
            last = self.answering and at == len(self.asked) - 1
            lines += wrapped(Text("you  ", self.style("accent")).append(visible(text, newlines=True), "default"), width)
            answer = Text("model  ", self.style("strong")).append(visible(text_of(tokens), newlines=True), "not bold")
            lines += wrapped(answer.append(" …" if last else "", self.style("muted")), width)
            total = f"{counted(len(tokens), 'token')}, sum of −log2 raw p {fmt.number(bits(-sum(map(log_p, tokens))) + 0.0)} bits"
            lines += wrapped(Text(total, style=self.style("muted")), width)
            lines += self._tokens(tokens, width) if self.show_tokens else []
            lines.append(Text())
        return lines

    def _tokens(self, tokens: Sequence[GeneratedToken], width: int) -> list[Text]:
        room = max(4, min(30, width - 3 * NUMBER))
        head = fit("token", room) + "".join(name.rjust(NUMBER) for name in ("raw p", "ln raw p", "bits"))
        lines = [Text(head, style=self.style("muted"), no_wrap=True)]
        for one in tokens:
            line = Text(fit(visible_token(token_text(one.bytes)) or "∅", room), self.style("strong"), no_wrap=True)
            numbers = percent(one.raw_probability), fmt.number(log_p(one), 3), fmt.number(bits(-log_p(one)) + 0.0, 3)
            lines.append(line.append("".join(cell.rjust(NUMBER) for cell in numbers), "not bold"))
        return lines

    def _raw(self, width: int) -> list[Text]:
        """The text that is fed, then what was drawn after it."""
        if self.part is None:
            return [Text("…", style=self.style("muted"))]
        count = counted(len(self.part.fed_ids), "token")
        lines = wrapped(Text(f"fed to the model, {count}; then the sampled answer:", self.style("muted")), width)
        drawn = token_text(b"".join(token.bytes for token in self.answers[-1]))
        text = Text(visible(self.part.fed_text, newlines=True)).append(
            visible(drawn, newlines=True), self.style("accent")
        )
        return [*lines, *wrapped(text, width)]

    def table(self) -> Iterable[Row]:
        yield "answer", "id", "text", "raw_probability", "log_raw_probability", "bits"
        for number, tokens in enumerate(self.answers, 1):
            for one in tokens:
                text, log = visible(token_text(one.bytes)), log_p(one)
                yield str(number), str(one.id), text, repr(one.raw_probability), repr(log), repr(bits(-log))
