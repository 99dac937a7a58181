"""The Merges screen: replays how BPE merges a word into tokens, merge by merge, forwards and backwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text

from tui_llm.common.display import truncate, visible, visible_token
from tui_llm.instruments.merges.question import Merges, MergesQuestion, Word
from tui_llm.llm.tokens.bpe import Replay
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import PALETTE
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens


def label(data: bytes) -> str:
    return visible_token(token_text(data)) or "∅"


def what(replay: Replay, step: int) -> str:
    """Merge number `step` (from 1) in words, safe to show."""
    state = replay.states[step - 1]
    assert state.best is not None
    left, right = state.parts[state.best : state.best + 2]
    return f"{label(left)} + {label(right)} → {label(left + right)}   rank {state.ranks[state.best]:,}"


def why(replay: Replay, step: int) -> str:
    """Why that merge is the next one."""
    state = replay.states[step - 1]
    assert state.best is not None
    rank = state.ranks[state.best]
    others = [r for at, r in enumerate(state.ranks) if r is not None and at != state.best]
    if not others:
        reason = "the only pair here that is a token"
    elif min(others) == rank:
        reason = "the lowest rank; it occurs more than once here, so the leftmost is merged first"
    else:
        reason = f"the lowest rank of {len(others) + 1} pairs that are tokens; the next is {min(others):,}"
    return reason


_key = CommandFactory("merges", "Merges")
KEYS = (
    _key("merges_back", "left", "undo a merge", "Undo the last merge", "step(-1)", together="merge"),
    _key("merges_on", "right", "next merge", "Make the next merge", "step(1)", together="merge"),
    _key("merges_first", "home", "bytes", "Go to the bytes, before any merge", "step_to(0)", footer=(), priority=True),
    _key("merges_last", "end", "tokens", "Go to the tokens, after all merges", "step_to(-1)", footer=(), priority=True),
    _key("merges_type", "t", "type a word", "Type a text and watch its merges", "type"),
    _key("merges_word_back", "comma", "previous word", "Go to the previous word", "word(-1)", together="word"),
    _key("merges_word_on", "full_stop", "next word", "Go to the next word", "word(1)", together="word"),
    _key("merges_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_merges", "escape,q,M", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


@opens("merges", LabContext.has_reading)
class MergesScreen(FullScreen):
    tour_name = "merges"
    TITLE_WORDS: ClassVar[str] = "Merges"
    own_keys = KEYS
    shows_model = False  # the vocabulary's
    shows_text = False
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.text: str | None = None  # the typed text, in place of the prompt
        self.merges: Merges | None = None
        self.step = 0
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self._ask(None)

    def _ask(self, first: int | None) -> None:
        request = self.context.lab.current_request()
        self.context.questions.ask(self, MergesQuestion(request, self.text, first), self._take, self._fail)

    def _take(self, merges: Merges) -> None:
        self.merges, self.problem = merges, ""
        word = self.word
        self.step = len(word.replay.states) - 1 if word is not None and word.replay is not None else 0
        self.refill()

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self.refill()

    @property
    def word(self) -> Word | None:
        return self.merges.words[0] if self.merges is not None and self.merges.words else None

    @property
    def tour_view(self) -> str:
        return "first" if self.merges is not None and self.step == 0 else ""

    def subject(self) -> str:
        if self.merges is None or self.word is None:
            return ""
        return f"of word {self.word.number + 1:,} of {self.merges.count:,}, by {self.merges.tokenizer}'s {self.merges.merges:,} merges"

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def content(self, width: int) -> tuple[list[Text], list[Text]]:
        strong, muted = self.style("strong"), self.style("muted")
        if self.problem:
            return [], wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        word = self.word
        if self.merges is None:
            return [], [Text("computing …", style=muted)]
        if word is None:
            return [], wrapped(Text("there is no word yet: t types one", style=muted), width)
        name = Text("word ").append(truncate(visible_token(word.text), max(1, width - 30)), self.style("accent"))
        if word.replay is None:
            return [name], wrapped(Text(visible(word.problem), style=self.style("bad")), width)
        replay, step = word.replay, self.step
        last = len(replay.states) - 1
        tokens = f"{len(word.tokens):,} token{'' if len(word.tokens) == 1 else 's'}"
        name.append(f"  {len(word.text.encode()):,} bytes → {tokens}", muted)
        head = [*wrapped(name, width)[:2], Text(f"merge {step} of {last}", style=strong)]
        if step:
            head += wrapped(Text(f"{what(replay, step)}: {why(replay, step)}"), width)
        else:
            head += wrapped(Text("before any merge: each byte is a part"), width)
        head += [Text(), *self._state(replay, step, width)]
        if step == last:
            head += self._end(word, width)
        lines = [Text(), Text("all merges, in order", style=muted)]
        for at in range(1, last + 1):
            line = Text(no_wrap=True)
            line.append("▸ " if at == step else "  ", self.style("accent"))
            line.append(truncate(f"{at}  {what(replay, at)}", max(1, width - 2)), strong if at == step else muted)
            lines.append(line)
        return [], [*head, *lines]

    def _state(self, replay: Replay, step: int, width: int) -> list[Text]:
        """The parts and, below each boundary, the pair's rank; the pair to be merged next is marked."""
        state = replay.states[step]
        lines: list[Text] = []
        parts, ranks = Text(no_wrap=True), Text(no_wrap=True)
        for at, part in enumerate(state.parts):
            rank = state.ranks[at] if at < len(state.ranks) else None
            name = truncate(label(part), max(1, width - 1))
            note = "" if at == len(state.ranks) else "·" if rank is None else fmt.count(rank)
            note = f"▲{note}" if at == state.best else note
            cells = max(cell_len(name), 1) + max(2, len(note) + 1)
            if parts.plain and parts.cell_len + cells > width:
                lines += [parts, ranks]
                parts, ranks = Text(no_wrap=True), Text(no_wrap=True)
            parts.append(name, self.style(f"token-{at % PALETTE}")).append(" " * (cells - cell_len(name)))
            style = self.style("accent") if at == state.best else self.style("muted")
            ranks.append(" " * cell_len(name)).append(note.ljust(cells - cell_len(name)), style)
        lines += [parts, ranks]
        says = "under each boundary: the pair's rank (·: not a token); the lowest, ▲, is merged next"
        return [*lines, *(wrapped(Text(says, style=self.style("muted")), width) if state.best is not None else [])]

    def _end(self, word: Word, width: int) -> list[Text]:
        one = len(word.tokens) == 1
        title = f"no pair is a token: {'this is the token, id' if one else 'these are the tokens, ids'} "
        line = Text(title, style=self.style("strong"))
        line.append(", ".join(str(token.id) for token in word.tokens), self.style("accent"))
        if word.replay is not None and word.replay.whole:
            line = Text(
                f"no pair is a token, but the whole word is one, id {word.tokens[0].id}: it is looked up whole",
                style=self.style("strong"),
            )
        return [Text(), *wrapped(line, width)]

    def table(self) -> Iterable[Row]:
        yield "merge", "left", "right", "joined", "rank", "parts"
        word = self.word
        if word is None or word.replay is None:
            return
        for at, state in enumerate(word.replay.states):
            parts = " ".join(part.hex() for part in state.parts)
            if not at:
                yield "0", "", "", "", "", parts
                continue
            before = word.replay.states[at - 1]
            assert before.best is not None
            left, right = before.parts[before.best : before.best + 2]
            yield str(at), left.hex(), right.hex(), (left + right).hex(), str(before.ranks[before.best]), parts

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _last(self) -> int:
        word = self.word
        return len(word.replay.states) - 1 if word is not None and word.replay is not None else 0

    def action_step(self, direction: int) -> None:
        self.step = max(0, min(self.step + direction, self._last()))
        self.refill()

    def action_step_to(self, place: int) -> None:
        self.step = place if place >= 0 else self._last()
        self.refill()

    def action_word(self, direction: int) -> None:
        if self.merges is not None and self.word is not None:
            number = self.word.number + direction
            if 0 <= number < self.merges.count:
                self._ask(number)

    def action_type(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if text:
                self.text = text
                self._ask(0)

        self.app.push_screen(
            AskScreen("A word to merge", "Enter shows it · Esc cancels", self.text or " strawberry", spaces=True),
            answered,
        )
