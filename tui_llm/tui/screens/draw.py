"""The draw: u landing on the cumulative distribution, as it was drawn and replayed under other settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen

from tui_llm.display import visible
from tui_llm.facts.draws import Draw, DrawQuestion
from tui_llm.llm.sampler import SamplerSettings
from tui_llm.reading import Question
from tui_llm.tui.command_draws import DRAW_COMMANDS
from tui_llm.tui.commands import bindings
from tui_llm.tui.state import TEMPERATURES, TOP_PS, Lab, step
from tui_llm.tui.widgets.bars import Bar, press
from tui_llm.tui.widgets.draw_lines import DrawLines

Inquire = Callable[[Question, Callable[[Any], object], Callable[[str], object]], None]
WARM = 1.2  # what was drawn at less is first replayed hotter, the rest cooler


class StepScreen(Screen[None]):
    """About one token of the continuation: one that was drawn, or the next one. Subclasses ask and show."""

    SCOPE = ""
    TITLE_WORDS = ""
    DEFAULT_CSS = """
    StepScreen { layout: vertical; overflow: hidden; }
    StepScreen Bar { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis;
        link-style: none; link-background: $panel; link-color: $text; }
    StepScreen Lines { padding: 0 1; height: 1fr; }
    """

    def __init__(self, lab: Lab, inquire: Inquire, index: int) -> None:
        super().__init__()
        self.lab = lab
        self.inquire = inquire
        self.index = max(0, min(index, len(lab.steps)))
        self.problem = ""
        self.waiting = True

    def ask(self) -> None:
        raise NotImplementedError

    def table(self) -> Iterable[tuple[str, ...]]:
        raise NotImplementedError

    def on_mount(self) -> None:
        parts = []
        commands = [command for command in DRAW_COMMANDS if command.scope == self.SCOPE]
        for label, group in groupby(commands, key=lambda command: command.together or command.label):
            keys = [(command.key_text, press(f"screen.{command.action}")) for command in group]
            words = [Content(key).stylize("bold $footer-key-foreground").stylize(style) for key, style in keys]
            parts.append(Content(" ").join([*words, Content(label).stylize(keys[-1][1])]))
        self.query_one("#step-keys", Bar).put(Content("  ").join(parts))
        self.ask_again()

    def ask_again(self) -> None:
        self.waiting = True
        self.show_title()
        self.ask()

    def failed(self, line: str) -> None:
        self.problem, self.waiting = line, False
        self.show_title()

    def show_title(self) -> None:
        steps = self.lab.steps
        which = f"token {self.index + 1} of {len(steps)}" if self.index < len(steps) else "the next token"
        parts: list[str | tuple[str, str]] = [(self.TITLE_WORDS, "bold"), f"  {which}"]
        if self.problem:
            parts.append((f"  ! {visible(self.problem)}", "$text-error"))
        elif self.waiting:
            parts.append(("  …", "dim"))
        self.query_one("#step-top", Bar).put(Content.assemble(*parts))

    def go(self, direction: int) -> bool:
        index = max(0, min(self.index + direction, len(self.lab.steps)))
        moved, self.index = index != self.index, index
        return moved

    def action_copy(self) -> None:
        rows = list(self.table())
        if len(rows) < 2:
            self.notify("there is nothing to copy yet", markup=False)
            return
        self.app.copy_to_clipboard("".join("\t".join(row) + "\n" for row in rows))
        self.notify(f"copied {len(rows) - 1} rows, tab-separated", markup=False)

    def action_leave(self) -> None:
        self.dismiss(None)


class DrawScreen(StepScreen):
    BINDINGS = bindings("draw")
    SCOPE = "draw"
    TITLE_WORDS = "The draw"

    def __init__(self, lab: Lab, inquire: Inquire, index: int) -> None:
        super().__init__(lab, inquire, index)
        self.u: float | None = None  # chosen by hand
        self.replay = self._first_replay()
        self.draw: Draw | None = None

    def _first_replay(self) -> SamplerSettings:
        own = self.lab.before_step(self.index).sampler
        return dataclasses.replace(own, temperature=1.5 if own.temperature < WARM else 0.5)

    def compose(self) -> ComposeResult:
        yield Bar(id="step-top")
        yield DrawLines()
        yield Bar(id="step-keys")

    def ask(self) -> None:
        request = self.lab.before_step(self.index)
        drawn = self.lab.steps[self.index] if self.index < len(self.lab.steps) else None
        own = drawn.u if drawn is not None else None
        self.inquire(
            DrawQuestion(
                request,
                (request.sampler, self.replay),
                self.u if self.u is not None else own,
                drawn.seed if drawn is not None else self.lab.seed,
                self.index,
            ),
            self._take,
            self.failed,
        )

    def _take(self, draw: Draw) -> None:
        if not self.is_mounted:
            return
        self.draw, self.problem, self.waiting = draw, "", False
        drawn = self.index < len(self.lab.steps)
        first = "tried" if self.u is not None else "drawn" if drawn else "next"
        self.query_one(DrawLines).show(draw, (first, "replay"))
        self.show_title()

    def table(self) -> Iterable[tuple[str, ...]]:
        return self.query_one(DrawLines).table()

    # ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────

    def action_step(self, direction: int) -> None:
        if self.go(direction):
            self.u = None
            self.ask_again()

    def action_temperature(self, direction: int) -> None:
        value = step(TEMPERATURES, self.replay.temperature, direction)
        self.replay = dataclasses.replace(self.replay, temperature=value)
        self.ask_again()

    def action_top_p(self, direction: int) -> None:
        self.replay = dataclasses.replace(self.replay, top_p=step(TOP_PS, self.replay.top_p, direction))
        self.ask_again()

    def action_move_u(self, by: float) -> None:
        now = self.u if self.u is not None else self.draw.u if self.draw is not None else None
        if now is not None:
            self.u = min(max(round(now + by, 4), 0.0), 0.9999)
            self.ask_again()

    def action_own_u(self) -> None:
        self.u, self.replay = None, self._first_replay()
        self.ask_again()
