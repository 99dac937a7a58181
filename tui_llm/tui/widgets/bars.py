"""The lines around the panes: what is open, which pane is shown, which keys there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from textual import events
from textual.content import Content
from textual.style import Style
from textual.widgets import Static

from tui_llm.display import visible
from tui_llm.reading import Reading, Weights
from tui_llm.tui import format as fmt
from tui_llm.tui.commands import PANE_TITLES, PANES, Command, footer

GAP = "  "  # between two keys
KEPT = {"fp32": "", "half": " [half-precision weights]", "int8": " [int8 weights: not the same numbers]"}


def press(action: str) -> Style:
    """A style that runs `action` (ours, never foreign text) when it is clicked."""
    return Style.from_meta({"@click": action})


class Bar(Static):
    """One line that never changes its size, so that a new text asks for no layout."""

    def put(self, content: Content) -> None:
        self.update(content, layout=False)


class TopBar(Bar):
    """Whose numbers these are and what they took; or what the engine is busy with; or what went wrong."""

    def show_model(self, weights: Weights, reading: Reading | None, following: str = "") -> None:
        step = "" if weights.step is None else f" at step {fmt.count(weights.step)}"
        kept = KEPT.get(weights.kept_as, f" [{weights.kept_as} weights]")
        facts = (
            f"{fmt.parameters(weights.parameters)} parameters: {weights.layers} layers × {weights.heads} heads,"
            f" width {weights.width} · context {fmt.count(weights.context)} tokens"
            f" · vocabulary {fmt.count(weights.vocabulary)} · {visible(weights.device)}"
        )
        took = ""
        if reading is not None:
            took = f"   fed {reading.forward_tokens} in {reading.milliseconds:.1f} ms"
        self.put(
            Content.assemble(
                (visible(weights.name) + step + visible(following) + visible(kept), "bold"),
                "  ",
                (facts, "dim"),
                (took, "dim"),
            )
        )

    def show_busy(self, text: str, seconds: float, hint: str) -> None:
        elapsed = f" {seconds:.1f} s" if seconds >= 0.5 else ""
        self.put(Content.assemble(f"{visible(text)} …{elapsed}", (f"  {hint}" if hint else "", "dim")))

    def show_problem(self, line: str) -> None:
        self.put(Content.assemble(("! ", "bold $text-error"), (visible(line), "$text-error")))


class TabBar(Bar):
    """One pane at a time: which ones there are."""

    def show(self, current: str) -> None:
        parts: list[Content] = []
        for number, name in enumerate(PANES, 1):
            title = PANE_TITLES[name].split(" ")[0]
            here = name == current
            text = f"[{number} {title}]" if here else f" {number} {title} "
            content = Content(text).stylize(press(f"screen.pane('{name}')"))
            parts.append(content.stylize("bold $text-accent") if here else content.stylize("dim"))
        self.put(Content("").join(parts))


class KeyBar(Bar):
    """The keys that matter where the focus is, as many as there is room for; each can be clicked."""

    _commands: tuple[Command, ...] = ()
    _shown: tuple[tuple[Command, ...], int] | None = None

    def show(self, place: str) -> None:
        self.show_commands(_of(place))

    def show_commands(self, shown: Iterable[Command]) -> None:
        self._commands = tuple(shown)
        width = self.content_size.width
        if width <= 0 or self._shown == (self._commands, width):
            return
        self._shown = self._commands, width
        entries = [
            (Content(" ").join([*map(_key, commands), Content(label).stylize(press(_action(commands[-1])))]),
             max(command.importance for command in commands))
            for label, group in groupby(self._commands, key=lambda command: command.together or command.label)
            if (commands := list(group))
        ]  # fmt: skip
        self.put(Content(GAP).join(fitting(entries, width)))

    def on_resize(self, _event: events.Resize) -> None:
        self.show_commands(self._commands)


def fitting(entries: Sequence[tuple[Content, int]], width: int) -> list[Content]:
    """Those of `entries` (content, importance) that stand in `width` cells beside each other, in their order: the least
    important are left out first, of equal ones the last. None is cut."""
    kept = list(range(len(entries)))

    def room() -> int:
        return sum(entries[at][0].cell_length for at in kept) + len(GAP) * (len(kept) - 1)

    while kept and room() > width:
        kept.remove(min(kept, key=lambda at: (entries[at][1], -at)))
    return [entries[at][0] for at in kept]


def _of(place: str) -> list[Command]:
    """A screen over the lab has its own way back, and not the lab's keys."""
    if place in (*PANES, "prompt"):
        return footer(place)
    return [command for command in footer(place) if place in command.footer]


def _key(command: Command) -> Content:
    return Content(command.key_text).stylize("bold $footer-key-foreground").stylize(press(_action(command)))


def _action(command: Command) -> str:
    node = "app." if command.scope == "app" else "focused." if command.scope in (*PANES, "prompt") else "screen."
    return command.action if "." in command.action.partition("(")[0] else node + command.action
