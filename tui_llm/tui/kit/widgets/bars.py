"""The one-line bars around the panes: `TopBar` (the open model), `TabBar` (the panes), `KeyBar` (the keys)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from textual import events
from textual.content import Content
from textual.style import Style
from textual.widget import Widget
from textual.widgets import Static

from tui_llm.common.display import truncate, visible
from tui_llm.common.numbers import counted
from tui_llm.facts.model import Weights
from tui_llm.facts.reading import Reading
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import HELP, HELP_TYPING, PANE_TITLES, PANES, Command

GAP = "  "  # between two keys
NAME = 16  # cells of a model's name that are shown in any case

Part = tuple[Content, int]  # of a line, with its importance


def press(action: str) -> Style:
    """A style that runs `action` on a click. `action` must not contain foreign text: it would run as a command."""
    return Style.from_meta({"@click": action})


class Bar(Static):
    """One line of constant size, so that new text triggers no layout."""

    DEFAULT_CSS = """
    Bar { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; link-style: none;
        link-background: $panel; link-color: $text; }
    """

    def put(self, content: Content) -> None:
        self.update(content, layout=False)


class TopBar(Bar):
    """The open model and the cost of the reading; or the engine's current work; or an error."""

    _model: tuple[str, list[Part], list[Part]] | None = None

    def show_model(self, weights: Weights, reading: Reading | None, state: Sequence[str] = ()) -> None:
        """`state`, after the name: what changes the model, each with what separates it from the words before."""
        choices = weights.choices.lines(weights.dtype) if reading is None else reading.choices
        reader = weights.reader if reading is None else reading.weights.reader
        note = "" if weights.dtype == "fp32" else f" [{choices[0].text}]"
        seen = "" if reading is None else reading.seen_words()  # beside the name: every pane's numbers depend on it
        words = [  # with their importance
            ("" if weights.step is None else f" at step {fmt.count(weights.step)}", 6),
            (f" {seen}" if seen else "", 9),
            *((one, 7) for one in state),
            (note, 8),
        ]
        facts = [
            (f"{fmt.parameters(weights.parameters)} parameters", 7),
            (f"{weights.layers} layers × {weights.heads} heads, width {weights.width}", 3),
            (f"context {fmt.count(weights.context)} tokens", 4),
            (f"vocabulary {fmt.count(weights.vocabulary)}", 1),
            (
                weights.device
                + ("" if reader == "torch" else f", {reader}")
                + (f", {weights.kernel} kernel" if weights.kernel else ""),
                8,
            ),
        ]
        if reading is not None:
            fed, took = reading.forward_tokens, reading.milliseconds
            ran = f"forward pass on {counted(fed, 'token')}" if fed else "all tokens in the KV cache"
            facts.append((f"{ran}: {took:.{1 if took < 9.95 else 0}f} ms", 2))
        # Unusual choices come before what the model's name implies; the usual ones where there is room.
        facts += [
            (choice.text, 5 if choice.changes else 0)
            for choice in choices[1 if note else 0 :]
            if not (seen and choice.text.startswith(seen))
        ]
        self._model = (
            visible(weights.name),
            [(Content(visible(text)).stylize("bold"), importance) for text, importance in words if text],
            [(Content(visible(fact)).stylize("$text-muted"), importance) for fact, importance in facts],
        )
        self._put_model()

    def _put_model(self) -> None:
        """Shows the name, and as much of the rest as fits beside it, each part whole. A long name is cut before the words
        about it, or all facts, are left out."""
        if self._model is not None:
            name, words, facts = self._model
            width = self.content_size.width or 10_000
            fact, _ = max(facts, key=lambda part: part[1])
            needed = sum(content.cell_length for content, _ in words) + len(GAP) + fact.cell_length
            name = truncate(name, min(width, max(NAME, width - needed)))
            line = Content(name).stylize("bold")
            line = Content("").join([line, *fitting(words, width - line.cell_length, "")])
            fit = fitting(facts, width - line.cell_length - len(GAP), " · ")
            self.put(Content.assemble(line, GAP, Content(" · ").join(fit)) if fit else line)

    def on_resize(self, _event: events.Resize) -> None:
        self._put_model()

    def show_busy(self, text: str, seconds: float, hint: str) -> None:
        self._model = None
        elapsed = f" {seconds:.1f} s" if seconds >= 0.5 else ""
        self.put(Content.assemble(f"{visible(text)} …{elapsed}", (f"  {hint}" if hint else "", "$text-muted")))

    def show_problem(self, line: str) -> None:
        self._model = None
        self.put(Content.assemble(("! ", "bold $text-error"), (visible(line), "$text-error")))


class TabBar(Bar):
    """The panes, when only one is shown at a time."""

    def show(self, current: str) -> None:
        parts: list[Content] = []
        for number, name in enumerate(PANES, 1):
            title = PANE_TITLES[name].split(" ")[0]
            here = name == current
            text = f"[{number} {title}]" if here else f" {number} {title} "
            content = Content(text).stylize(press(f"screen.pane('{name}')"))
            parts.append(content.stylize("bold $text-accent") if here else content.stylize("$text-muted"))
        self.put(Content("").join(parts))


class KeyBar(Bar):
    """The keys for the widget with the focus, as many as fit; each can be clicked. Help is always among them."""

    DEFAULT_CSS = """
    KeyBar.-blank { text-opacity: 0%; }
    """
    _commands: tuple[Command, ...] = ()
    _shown: tuple[tuple[Command, ...], int] | None = None
    _pane: Widget | None = None
    _further: tuple[Command, ...] = ()

    def show(self, shown: Iterable[Command], pane: Widget | None = None, further: Iterable[Command] = ()) -> None:
        """Shows the keys of the commands `shown`. The bottom border of `pane` shows those that don't fit here, then
        `further`."""
        if self._pane is not None and self._pane is not pane:
            self._pane.border_subtitle = None
        self._pane, self._further = pane, tuple(further)
        self.show_commands(shown)
        self.show_overflow()

    def show_overflow(self) -> None:
        """Shows in the pane's border what has no room in the bar. Commands of every pane ("*") are not repeated."""
        pane, width = self._pane, self.content_size.width
        if pane is None or width <= 0:
            return
        entries = _entries(self._commands)
        here = {id(content) for content in fitting(entries, width)}
        groups = zip(entries, _groups(self._commands), strict=True)
        overflow = [
            (entry[0], 1) for entry, commands in groups if id(entry[0]) not in here and "*" not in commands[0].footer
        ]
        overflow += _entries(self._further)
        pane.border_subtitle = Content(GAP).join(fitting(overflow, pane.outer_size.width - 6))

    def show_commands(self, shown: Iterable[Command]) -> None:
        shown = tuple(shown)
        self._commands = shown if {HELP, HELP_TYPING} & set(shown) else (*shown, HELP)
        width = self.content_size.width
        if width <= 0 or self._shown == (self._commands, width):
            return
        self._shown = self._commands, width
        self.put(Content(GAP).join(fitting(_entries(self._commands), width)))

    def on_resize(self, _event: events.Resize) -> None:
        self.show_commands(self._commands)
        self.show_overflow()


def _groups(commands: Iterable[Command]) -> list[list[Command]]:
    """Groups neighbouring commands that share a label."""
    return [list(group) for _, group in groupby(commands, key=_label)]


def _label(command: Command) -> str:
    return command.together or command.label


def _entries(commands: Iterable[Command]) -> list[tuple[Content, int]]:
    """The keys and label of each group, and its importance."""
    return [
        (
            Content(" ").join([*map(_key, group), Content(_label(group[0])).stylize(press(_action(group[-1])))]),
            max(command.importance for command in group),
        )
        for group in _groups(commands)
    ]


def fitting(entries: Sequence[tuple[Content, int]], width: int, gap: str = GAP) -> list[Content]:
    """The `entries` (content, importance) that fit side by side into `width` cells, in their order. The least important
    are dropped first; among equals, the last. An entry is never truncated."""
    kept = list(range(len(entries)))

    def room() -> int:
        return sum(entries[at][0].cell_length for at in kept) + len(gap) * (len(kept) - 1)

    while kept and room() > width:
        kept.remove(min(kept, key=lambda at: (entries[at][1], -at)))
    return [entries[at][0] for at in kept]


def _key(command: Command) -> Content:
    return Content(command.key_text).stylize("bold").stylize(press(_action(command)))


def _action(command: Command) -> str:
    node = "app." if command.scope == "app" else "focused." if command.scope in (*PANES, "prompt") else "screen."
    return command.action if "." in command.action.partition("(")[0] else node + command.action
