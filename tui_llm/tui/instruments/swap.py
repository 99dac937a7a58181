"""The Swap screen: replaces the token at the token cursor by one of its candidates or by typed text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import fit, visible, visible_token
from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import Candidate
from tui_llm.facts.reading import Reading
from tui_llm.instruments.swap.question import PlaceQuestion, Swapped, SwapQuestion
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen, Lazy
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext

_key = CommandFactory("swap", "Swap")
KEYS = (
    _key("swap_do", "enter", "swap", "Replace the token by the one under the cursor", "swap"),
    _key("swap_type", "t", "type", "Type the replacement", "type"),
    _key("swap_rest", "r", "rest", "Keep the tokens after it, or drop them and let the model continue", "keep_rest"),
    _key("swap_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_swap", "escape,q,S", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


class SwapScreen(FullScreen):
    TITLE_WORDS: ClassVar[str] = "Swap"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext, take: Callable[[Swapped], object]) -> None:
        super().__init__()
        self.context, self.take = context, take
        self.keep = True
        self.problem = ""
        self._take_text()
        self.reading: Reading | None = None

    def on_mount(self) -> None:
        super().on_mount()
        self.listing.can_select = True
        self._ask()

    def _take_text(self) -> None:
        """The lab's text, in the model that is open now: the request that the screen and its candidates are for."""
        self.request, self._model = self.context.lab.current_request(), self.context.model

    def reopened(self, weights: Weights) -> None:
        """The ids are of one vocabulary."""
        if weights.name != self._model:
            self.context.questions.forget(SwapQuestion)
            self._take_text()
            self.reading, self.problem = None, ""
            self.refill()
        self._ask()

    def _ask(self) -> None:
        self.context.questions.ask(self, PlaceQuestion(self.request), self._read, self._fail)

    def _read(self, reading: Reading) -> None:
        self.reading = reading
        self.refill()
        self.listing.on_focus()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        reading = self.reading
        return reading.distribution.candidates if reading is not None and reading.distribution is not None else ()

    def subject(self) -> str:
        reading = self.reading
        if reading is None or reading.following is None:
            return ""
        return f"token {reading.position + 1:,} of {len(reading.prompt_ids):,}"

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        reading, muted = self.reading, self.style("muted")
        if reading is None:
            return [], [Text("computing …", style=muted)]
        if reading.following is None:
            return [], wrapped(Text("no token is selected: Esc, then , and . select one", style=muted), width)
        line = Text("replace ").append(visible_token(reading.following.text) or "∅", self.style("accent"))
        if reading.following_score is not None:
            line.append(f" ({numbers.precise_percent(reading.following_score.probability)})", muted)
        line.append(" by the token under the cursor; t types another" if self.candidates else " by what you type: t")
        after = len(reading.prompt_ids) - reading.position - 1
        rest = Text("the tokens after it ", style=self.style("strong"))
        rest.append(f"({fmt.count(after)}) ", "not bold")
        rest.append("are kept, and read again" if self.keep else "are dropped, and drawn again", self.style("accent"))
        rest.append("  r: switch", muted)
        head = [*wrapped(line, width), *wrapped(rest, width)]
        if self.problem:
            head += wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        if not self.candidates:
            return head, wrapped(
                Text(visible((reading.problem or "there are no candidates").replace("(o)", "(Esc, o)")), style=muted),
                width,
            )
        room = max(4, width - 26)
        head.append(Text("  " + fit("candidate", room) + "id".rjust(10) + "raw p".rjust(10), style=muted, no_wrap=True))
        return head, Lazy(len(self.candidates), lambda at: self._row(at, room))

    def _row(self, at: int, room: int) -> Text:
        row = self.candidates[at]
        line = Text("▸ " if at == self.listing.cursor else "  ", no_wrap=True)
        line.append(fit(visible_token(row.text) or "∅", room), self.style("strong"))
        line.append(str(row.id).rjust(10), self.style("muted"))
        return line.append(numbers.percent(row.raw_probability).rjust(10))

    def table(self) -> Iterable[Row]:
        yield "rank", "id", "bytes", "text", "raw_probability"
        for row in self.candidates:
            yield str(row.rank), str(row.id), row.bytes.hex(), visible(row.text), repr(row.raw_probability)

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_keep_rest(self) -> None:
        self.keep = not self.keep
        self.refill()

    def action_swap(self) -> None:
        at = self.listing.cursor
        if at is not None and at < len(self.candidates):
            self._swap(SwapQuestion(self.request, id=self.candidates[at].id, keep=self.keep))

    def action_type(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if text:
                self._swap(SwapQuestion(self.request, text=text, keep=self.keep))

        self.app.push_screen(
            AskScreen("Replacement", "Enter replaces the token · several tokens are allowed", " ", spaces=True),
            answered,
        )

    def _swap(self, question: SwapQuestion) -> None:
        """Asks even before the screen's own reading is there: what was typed is not dropped, and the engine refuses what
        can't be."""
        self.context.questions.ask(self, question, self._done, self._fail)

    def _done(self, swapped: Swapped) -> None:
        if self.context.model != self._model:
            return  # another model answered, with its own token of that id; `reopened` is on its way
        self.dismiss(None)
        self.take(swapped)

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self.refill()
