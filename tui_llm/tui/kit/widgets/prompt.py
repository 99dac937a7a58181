"""A text editor that holds any text exactly and sends none of it raw to the terminal.

Control, format, private-use and unassigned characters (every Unicode C* category, and the line and paragraph
separators) are replaced in the document by stand-ins from the private-use planes, one for one and one cell wide, so
that cursor, wrapping and undo stay correct; they are drawn as signs. `prompt_text` gives the text as it was typed.
Newlines are kept as they are; a lone surrogate is not a character and becomes U+FFFD.

The editor holds only the end of a very long text; `folded` holds the rest, and nothing is lost. Undo and redo are not
the editor's own: it posts a message for them, so that one history covers every change of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rich.style import Style
from rich.text import Text
from textual import events
from textual.document._document import EditResult, Location
from textual.geometry import Region
from textual.message import Message
from textual.widgets import TextArea
from textual.widgets.text_area import Edit

from tui_llm.common.display import visible
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.spaces import UNSEEN, drawn

EDITABLE = 6_000  # most characters in the editor; typing stays fast in one line of that length
KEEP = 3_000  # how many of them are kept when there are more
SIGN = "¿"
_SURROGATES = re.compile("[\ud800-\udfff]")
_FIRST_STAND_IN, _LAST_STAND_IN = 0xF0000, 0x10FFFD
_STAND_INS = re.compile("[\U000f0000-\U0010fffd]+")
_REVERSE = Style(reverse=True)
_MARK = Style(reverse=True, underline=True, bold=True)
_WORD = re.compile(r"\s*\S+|\s+")


class VisibleTable(dict[int, int]):
    """A `str.translate` table that gives each hidden character the next free code point of planes 15 and 16."""

    def __init__(self) -> None:
        super().__init__()
        self.back: dict[int, int] = {}

    def __missing__(self, code: int) -> int:
        if code == 0x0A or not (
            unicodedata.category(chr(code)) in ("Zl", "Zp") or unicodedata.category(chr(code)).startswith("C")
        ):
            self[code] = code
            return code
        stand_in = _FIRST_STAND_IN + len(self.back)
        if stand_in > _LAST_STAND_IN:  # over 131,000 different unprintable characters: not a text
            return 0xFFFD
        self[code] = stand_in
        self.back[stand_in] = code
        return stand_in


_TABLE = VisibleTable()


def to_document(text: str) -> str:
    return text.translate(_TABLE)


def from_document(text: str) -> str:
    return text.translate(_TABLE.back)


def clean(text: str) -> str:
    """`text` with each lone surrogate, which UTF-8 can't encode, replaced by U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def sign(code: int) -> str:
    """The one-cell sign for a hidden character."""
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else SIGN


_key = CommandFactory("prompt", "Prompt")
KEYS = (
    _key("done_typing", "escape", "done typing", "Stop typing: single letters are then commands", "done_typing(False)", importance=WAY_OUT),
    _key("done_typing_enter", "enter", "done typing", "Stop typing, as Esc does", "done_typing(True)", footer=()),
    _key("newline", "alt+enter,ctrl+o", "new line", "Insert a line break (ctrl+o does too)", "newline"),
    _key("drop_folded", "ctrl+l", "delete hidden text", "Delete the hidden start of a very long prompt", "drop_folded", footer=()),
    _key("ghost_token", "right", "accept a token", "At the end of the text: accept a token of the ghost text, the likeliest continuation", "ghost_token", footer=()),
    _key("ghost_word", "alt+right,alt+f", "accept a word", "At the end of the text: accept a word of the ghost text", "ghost_word", footer=()),
    _key("ghost_all", "end,ctrl+e", "accept all", "At the end of the text: accept all of the ghost text", "ghost_all", footer=()),
)  # fmt: skip


class PromptEditor(TextArea):
    BINDINGS = bindings(KEYS)

    class Edited(Message):
        """The text has changed."""

    class TypingDone(Message):
        """The user has finished typing; `confirmed` by Enter rather than Esc."""

        def __init__(self, confirmed: bool) -> None:
            self.confirmed = confirmed
            super().__init__()

    class UndoRequested(Message):
        """Revert the last change of the text."""

    class RedoRequested(Message):
        """Repeat the change that was undone last."""

    def __init__(self, text: str = "", *, id: str | None = None, spaces: re.Pattern[str] | None = UNSEEN) -> None:
        """`spaces` matches the parts of a line in which each space is drawn as `·`; None draws none."""
        # If passed to the parent class, the text would be split at every line separator that Python knows.
        super().__init__("", id=id, highlight_cursor_line=False, soft_wrap=True, show_line_numbers=False)
        self.cursor_blink = False  # no timer while idle
        self.match_cursor_bracket = False
        self.folded = ""
        self._mark: tuple[int, int] | None = None
        self._spaces = spaces
        self._hint = Text()
        self._ghost: tuple[str, tuple[str, ...]] = ("", ())  # the text that it continues, and its pieces
        self.set_text(text)

    # ── the text ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def prompt_text(self) -> str:
        """The text exactly as it was typed, pasted or set."""
        return self.folded + from_document(self.text)

    def set_text(self, text: str, cursor: int | None = None) -> None:
        """Replaces all text; the cursor moves to character `cursor`, or to the end."""
        text = clean(text)
        self._load("", text)
        if cursor is not None:
            self._move_to(max(0, min(cursor, len(text)) - len(self.folded)))

    def _move_to(self, offset: int) -> None:
        lines = self.text[:offset].split("\n")
        self.move_cursor((len(lines) - 1, len(lines[-1])))

    def _load(self, folded: str, text: str) -> None:
        if len(text) > EDITABLE:
            folded, text = folded + text[:-KEEP], text[-KEEP:]
        self.folded = folded
        self.load_text(to_document(text))
        self.move_cursor(self.document.end)
        self._show_folded()

    def hint(self, text: Text) -> None:
        """Shows a hint below the text."""
        if text != self._hint:
            self._hint = text
            self._show_folded()

    def _show_folded(self) -> None:
        hidden = len(self.folded)
        parts = [Text(f"⋯ {hidden:,} earlier characters are not shown (ctrl+l deletes them)")] if hidden else []
        parts += [self._hint] if self._hint else []
        self.border_subtitle = Text(" · ").join(parts) if parts else None

    def action_drop_folded(self) -> None:
        if self.folded:
            self.folded = ""
            self._show_folded()
            self.post_message(self.Edited())

    # ── edits ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _replace_via_keyboard(self, insert: str, start: Location, end: Location) -> EditResult | None:
        """Handles typing, pasting and the app's clipboard."""
        insert = clean(insert)
        removed = len(self.document.get_text_range(*sorted((start, end))))
        if len(self.text) - removed + len(insert) <= EDITABLE:
            return super()._replace_via_keyboard(to_document(insert), start, end)
        top, bottom = sorted((start, end))
        before = from_document(self.document.get_text_range((0, 0), top))
        after = from_document(self.document.get_text_range(bottom, self.document.end))
        self._load(self.folded, before + insert + after)
        # The cursor goes after the inserted text, if that is still in the editor.
        self._move_to(max(0, len(from_document(self.text)) - len(after)))
        return None

    def edit(self, edit: Edit) -> EditResult:
        result = super().edit(edit)
        self.scroll_cursor_visible()  # the parent class scrolls too, but before it knows the text's new height
        return result

    def on_resize(self, _event: events.Resize) -> None:
        # The cursor may now be on another row, or the box be lower. After the parent class has wrapped the text anew.
        self.call_next(self.scroll_cursor_visible)

    async def _on_paste(self, event: events.Paste) -> None:
        # Terminals send a pasted line break as a carriage return.
        event.prevent_default()
        event.stop()
        self._replace_via_keyboard(event.text.replace("\r\n", "\n").replace("\r", "\n"), *self.selection)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":  # Enter is a binding that leaves the editor; a newline has its own key
            event.prevent_default()

    def action_newline(self) -> None:
        self._replace_via_keyboard("\n", *self.selection)

    def action_done_typing(self, confirmed: bool) -> None:
        self.post_message(self.TypingDone(confirmed))

    def action_delete_left(self) -> None:
        if self.folded and self.selection.is_empty and self.cursor_location == (0, 0):
            back, kept = self.folded[-KEEP:], self.folded[:-KEEP]
            behind = len(self.text)
            self._load(kept, back + from_document(self.text))
            self._move_to(len(self.text) - behind)
        super().action_delete_left()

    def undo(self) -> None:
        self.post_message(self.UndoRequested())

    def redo(self) -> None:
        self.post_message(self.RedoRequested())

    # ── ghost text ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def at_end(self) -> bool:
        return self.selection.is_empty and self.cursor_location == self.document.end

    def show_ghost(self, pieces: Sequence[str]) -> None:
        """Shows a likely continuation dimmed after the text, as long as what is typed agrees with it."""
        self._ghost = (self.prompt_text, tuple(pieces))
        self.update_suggestion()

    @property
    def ghost(self) -> tuple[str, ...]:
        """The pieces that can be accepted now."""
        base, pieces = self._ghost
        if not pieces or not self.at_end or not (text := self.prompt_text).startswith(base):
            return ()
        typed, rest = text[len(base) :], list(pieces)
        while typed and rest:
            if typed.startswith(rest[0]):
                typed = typed[len(rest.pop(0)) :]
            elif rest[0].startswith(typed):
                typed, rest[0] = "", rest[0][len(typed) :]
            else:
                return ()
        return () if typed else tuple(rest)

    def update_suggestion(self) -> None:
        self.suggestion = visible("".join(self.ghost))

    def _take(self, text: str) -> bool:
        if text:
            self._replace_via_keyboard(text, *self.selection)
        return bool(text)

    def action_ghost_token(self) -> None:
        if not self._take("".join(self.ghost[:1])):
            self.action_cursor_right()

    def action_ghost_word(self) -> None:
        word = _WORD.match("".join(self.ghost))
        if not self._take(word[0] if word else ""):
            self.action_cursor_word_right()

    def action_ghost_all(self) -> None:
        if not self._take("".join(self.ghost)):
            self.action_cursor_line_end()

    def action_cursor_right(self, select: bool = False) -> None:
        self.suggestion = ""  # otherwise TextArea would insert the suggestion as it is drawn, not the text itself
        super().action_cursor_right(select)
        self.update_suggestion()

    def action_copy(self) -> None:
        if self.selected_text:
            self.app.copy_to_clipboard(from_document(self.selected_text))

    def action_cut(self) -> None:
        if self.selected_text:
            self.action_copy()
            self._delete_via_keyboard(*self.selection)

    def on_text_area_selection_changed(self, event: TextArea.SelectionChanged) -> None:
        self.update_suggestion()

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self.post_message(self.Edited())

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def get_line(self, line_index: int) -> Text:
        line = self.document.get_line(line_index)
        marked = self._marked(line_index, len(line))
        line = line if self._spaces is None else drawn(line, self._spaces)
        if not (runs := [match.span() for match in _STAND_INS.finditer(line)]):
            text = Text(line, end="", no_wrap=True)
            if marked:
                text.stylize(_MARK, *marked)
            return text
        text = Text(_STAND_INS.sub(_signs, line), end="", no_wrap=True)
        for start, end in runs:
            text.stylize(_REVERSE, start, end)
        if marked:
            text.stylize(_MARK, *marked)
        return text

    def mark(self, span: tuple[int, int] | None) -> None:
        """Marks the characters from `start` up to `end` of the prompt's text, which the token cursor is on."""
        if span != self._mark:
            rows = self._rows(self._mark)
            self._mark = span
            self._line_cache.clear()
            top, width = self.scroll_offset.y, self.size.width
            self.refresh(*(Region(0, y - top, width, 1) for y in rows | self._rows(span)))

    def _rows(self, span: tuple[int, int] | None) -> set[int]:
        """The wrapped rows, counted from the top of the text, that contain those characters."""
        if span is None:
            return set()
        offset = self.wrapped_document.location_to_offset
        first, last = (offset(self._location(at)).y for at in (span[0], max(span[0], span[1] - 1)))
        return set(range(first, last + 1))

    def _location(self, at: int) -> Location:
        """The location of character `at` of the prompt's text; the start of the document if that is folded away."""
        at = max(0, at - len(self.folded))
        for number, line in enumerate(self.document.lines):
            if at <= len(line):
                return number, at
            at -= len(line) + 1
        return self.document.end

    def _marked(self, line_index: int, length: int) -> tuple[int, int] | None:
        """The part of a line that is marked, as character offsets, or None. A line break alone shows no mark."""
        if self._mark is None:
            return None
        begin = len(self.folded) + sum(len(line) + 1 for line in self.document.lines[:line_index])
        start, end = (max(0, at - begin) for at in self._mark)
        start, end = min(start, length), min(end, length)
        return (start, end) if start < end else None


def _signs(run: re.Match[str]) -> str:
    return "".join(sign(_TABLE.back[ord(character)]) for character in run[0])
