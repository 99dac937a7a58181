"""The help screen: the keys of where one is, what the numbers there mean, then all other keys and the glossary; with a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.screen import ModalScreen, Screen
from textual.widget import Widget

from tui_llm.common.display import truncate, visible
from tui_llm.tui.glossary import TERMS, Term, terms_at
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory, bindings, key_text
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines

NAMES = 22  # width of the first column, in cells
NUMBERS = "What is this number?"
HINT = "/ find · w what is this number? · Esc closes"


@dataclass(frozen=True, slots=True)
class HelpPlace:
    """Where the help was opened: the scope and the group of the commands there, and the row with the cursor."""

    scope: str = ""
    group: str = ""
    row: tuple[str, ...] = ()


def place_of(screen: Screen[object], commands: Mapping[str, Command]) -> HelpPlace:
    """The innermost widget around the focus that has commands of its own. `commands`: all, by id."""
    nodes = screen.focused.ancestors_with_self if screen.focused is not None else [screen]
    for node in nodes:
        ids = (bound.binding.id or "" for bound in screen.active_bindings.values() if bound.node is node)
        own = [commands[id] for id in ids if id in commands and commands[id].scope != "app"]
        if own and isinstance(node, Widget):
            row = _row(screen.focused)
            return HelpPlace(own[0].scope, own[0].group, row) if own[0].scope != "lab" else HelpPlace()
    return HelpPlace()


def _row(focused: Widget | None) -> tuple[str, ...]:
    """The column heads and the row under the cursor, as drawn."""
    if not isinstance(focused, Lines) or focused.cursor is None:
        return ()
    width = focused.line_width
    heads = [line.plain for line in focused.head(width)][-1:]
    return (*heads, focused.row(focused.cursor, width, selected=True).plain)


@lru_cache(maxsize=2048)
def _broken(words: str, width: int) -> tuple[str, ...]:
    """The lines of `wrapped`. Cached: each opening of the help wraps the same 600 sentences, a quarter of its time."""
    return tuple(line.plain for line in wrapped(Text(words), width))


class HelpLines(Lines):
    def __init__(self, commands: Sequence[Command], place: HelpPlace) -> None:
        super().__init__(id="help")
        self._commands, self._place = commands, place
        self._lines: list[Text] = []
        self._entries: list[tuple[int, str]] = []  # the first line of each entry, and its words
        self._numbers = 0  # the line of the heading of `NUMBERS`
        self._sought, self._found = "", 0
        self._made_for: tuple[int, Style, Style, Style] | None = None  # width and styles of the lines

    def on_mount(self) -> None:
        self.border_title = "Keys and glossary"
        self.border_subtitle = HINT

    # ── the lines ────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> list[Text]:
        wanted = (width, self.style("muted"), self.style("accent"), self.style("strong"))
        if wanted != self._made_for:
            self._make_lines(width)
            self._made_for = wanted
        return []

    def _make_lines(self, width: int) -> None:
        self._lines, self._entries = [], []
        groups = list(dict.fromkeys(command.group for command in self._commands))
        here = self._place.group if self._place.group in groups else ""
        if here:
            self._keys(here, width)
        self._numbers = len(self._lines)
        terms = terms_at(self._place.scope)
        if terms:
            self._heading(f"{NUMBERS}  {here}")
            for line in self._place.row:
                self._lines.append(Text(truncate(visible(line), width), style=self.style("muted"), no_wrap=True))
            self._terms(terms, width)
        else:
            note = "Esc ends typing: single letters are then commands. i starts typing again."
            self._lines += wrapped(Text(note, style=self.style("muted")), width)
        for group in groups:
            if group != here:
                self._keys(group, width)
        self._heading("Glossary")
        if not terms:
            self._numbers = len(self._lines) - 1
        self._terms(TERMS, width)

    def _heading(self, words: str) -> None:
        self._lines += [*([Text()] if self._lines else []), Text(words, style=self.style("accent"), no_wrap=True)]

    def _keys(self, group: str, width: int) -> None:
        self._heading(group)
        for command in self._commands:
            if command.group == group:
                self._entry(", ".join(key_text(key) for key in command.keys.split(",")), command.tooltip, width)

    def _terms(self, terms: Sequence[Term], width: int) -> None:
        for term in terms:
            self._entry(term.name, term.meaning + (f" [{term.unit}]" if term.unit else ""), width)

    def _entry(self, name: str, meaning: str, width: int) -> None:
        """A name with its meaning beside it, or below it where one of them has no room."""
        self._entries.append((len(self._lines), f"{name} {meaning}".casefold()))
        room, strong = width - NAMES, self.style("strong")
        if room < 20:
            self._lines += (Text(line, style=strong) for line in _broken(name, width))
            self._lines += (Text(line) for line in _broken(meaning, width))
            return
        lines, label = _broken(meaning, room), f"  {name}"
        gap = NAMES - cell_len(label)
        if gap < 2:  # a long name would run into its meaning
            self._lines += (Text(line, style=strong, no_wrap=True) for line in _broken(label, width))
        else:
            self._lines.append(Text(label + " " * gap, style=strong, no_wrap=True).append(lines[0], "not bold"))
            lines = lines[1:]
        self._lines += (Text(" " * NAMES + line, no_wrap=True) for line in lines)

    def row_count(self, width: int) -> int:
        return len(self._lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        line = self._lines[index].copy()
        if self._sought:
            line.highlight_words([self._sought], self.style("cursor") + self.style("accent"), case_sensitive=False)
        return line

    # ── the search ───────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, words: str) -> None:
        """Goes to the first entry from here on that contains `words`."""
        self._sought = " ".join(words.split())
        hits = self._hits()
        here = self.scroll_offset.y
        self._found = next((at for at, line in enumerate(hits) if line >= here), 0)
        self._show_hit()

    def find_next(self, by: int) -> None:
        self._found += by
        self._show_hit()

    def _hits(self) -> list[int]:
        sought = self._sought.casefold()
        return [line for line, words in self._entries if sought in words] if sought else []

    def _show_hit(self) -> None:
        hits = self._hits()
        if hits:
            self._found %= len(hits)
            self.scroll_to(y=hits[self._found], animate=False)
            self.border_subtitle = Text(f"{self._found + 1} of {len(hits)} · n N next · / find · Esc closes")
        else:
            sought = truncate(visible(self._sought), 20)
            self.border_subtitle = Text(f"no match for {sought!r} · / find · Esc closes" if sought else HINT)
        self.rebuild()
        self.refresh()

    def show_numbers(self) -> None:
        self.scroll_to(y=self._numbers, animate=False)


_key = CommandFactory("help", "Help")
KEYS = (
    _key("find_help", "slash", "find", "Find words in the keys and the glossary", "find"),
    _key("find_help_next", "n", "next", "Go to the next entry with these words", "find_next(1)"),
    _key("find_help_back", "N", "previous", "Go to the previous entry with these words", "find_next(-1)"),
    _key("what_is_this", "w", "what is this number?", "Go to the meaning of the numbers on the screen below", "numbers"),
    _key("close_help", "escape,q,question_mark,f1", "back", "Close the help", "close", importance=WAY_OUT),
)  # fmt: skip


class HelpScreen(BaseScreen, ModalScreen[None]):
    own_keys = KEYS
    BINDINGS = bindings(KEYS, modal=True)

    def __init__(self, commands: Sequence[Command], place: HelpPlace | None = None) -> None:
        super().__init__()
        self._commands, self._place = commands, place or HelpPlace()

    def compose(self) -> ComposeResult:
        yield HelpLines(self._commands, self._place)

    @property
    def lines(self) -> HelpLines:
        return self.query_one(HelpLines)

    def action_find(self) -> None:
        def answered(words: str | None) -> None:
            if words is not None:
                self.lines.find(words)

        hint = "Enter finds · then n and N go to the next and the previous one · Esc cancels"
        self.app.push_screen(AskScreen("Find in the help", hint, self.lines._sought), answered)

    def action_find_next(self, by: int) -> None:
        self.lines.find_next(by)

    def action_numbers(self) -> None:
        self.lines.show_numbers()

    def action_close(self) -> None:
        self.dismiss(None)
