"""The draw of one token: u on the cumulative distribution, as it was drawn and as replayed with other settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from textual.app import ComposeResult
from textual.content import Content
from textual.widget import Widget

from tui_llm.common.display import visible
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.request import Question
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.draws.question import Draw, DrawQuestion
from tui_llm.tui.instruments.draws.draw_lines import DrawLines
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.over import OverLab
from tui_llm.tui.kit.widgets.answer_lines import AnswerLines
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.state.lab import TEMPERATURES, TOP_PS, Lab, step

Inquire = Callable[[Widget, Question, Callable[[Any], object], Callable[[str], object]], None]
WARM = 1.2  # a draw below this temperature is first replayed hotter, any other cooler


def was_drawn(step: GeneratedToken) -> bool:
    """Whether the token was sampled (or, if greedy, had the largest logit), not set by the user or given in the text."""
    return step.u is not None or (step.sampler.greedy and not step.by_hand)


class StepScreen(OverLab):
    """A screen about one token of the continuation, or about the next one. Subclasses ask the question and show the
    answer."""

    TITLE_WORDS = ""
    DEFAULT_CSS = """
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

    def on_mount(self) -> None:
        self.show_keys()
        self.ask_again()

    def ask_again(self) -> None:
        self.waiting = True
        self.show_title()
        self.ask()

    def failed(self, line: str) -> None:
        self.problem, self.waiting = line, False
        self.query_one(AnswerLines).show_problem(line)
        self.show_title()

    @property
    def note(self) -> str:
        """What the title says about the token; empty if it is the one that was drawn."""
        steps = self.lab.steps
        if self.index < len(steps) and not was_drawn(steps[self.index]):
            return "not drawn: chosen by the user, or part of the text; these tokens could have been drawn"
        return ""

    @property
    def later_tokens(self) -> int:
        return len(self.lab.steps) - self.index

    def show_title(self) -> None:
        self.mark_seen()
        steps = self.lab.steps
        which = f"token {self.index + 1} of {len(steps)}" if self.index < len(steps) else "the next token"
        parts: list[str | tuple[str, str]] = [(self.TITLE_WORDS, "bold"), f"  {which}"]
        if note := self.note:
            parts.append((f"  {note}", "$text-accent"))
        if changed := len(self.lab.before_step(self.index).overrides):
            parts.append((f"  what if: {changed} logit{'' if changed == 1 else 's'} changed", "$text-accent"))
        if self.problem:
            parts.append((f"  ! {visible(self.problem)}", "$text-error"))
        elif self.waiting:
            parts.append(("  …", "$text-muted"))
        self.query_one("#step-top", Bar).put(Content.assemble(*parts))

    def go(self, direction: int) -> bool:
        index = max(0, min(self.index + direction, len(self.lab.steps)))
        moved, self.index = index != self.index, index
        return moved


_key = CommandFactory("draw", "The draw")
KEYS = (
    _key("close_draw", "escape,q,D", "back", "Back to the five panes", "close", importance=WAY_OUT),
    _key("draw_earlier", "left", "earlier", "Go to the previous drawn token", "step(-1)", together="token"),
    _key("draw_later", "right", "later", "Go to the next drawn token; after the last one, to the token to be drawn next", "step(1)", together="token"),
    _key("replay_cooler", "left_square_bracket", "cooler", "Replay the same u at a lower temperature", "temperature(-1)", together="replay's temperature"),
    _key("replay_warmer", "right_square_bracket", "warmer", "Replay the same u at a higher temperature", "temperature(1)", together="replay's temperature"),
    _key("replay_top_p_down", "left_curly_bracket", "top-p −", "Replay the same u with a lower top-p", "top_p(-1)", together="its top-p"),
    _key("replay_top_p_up", "right_curly_bracket", "top-p +", "Replay the same u with a higher top-p", "top_p(1)", together="its top-p"),
    _key("u_down", "minus", "lower u", "Try a u that is lower by 0.01", "move_u(-0.01)", together="other u"),
    _key("u_up", "plus,equals_sign", "higher u", "Try a u that is higher by 0.01", "move_u(0.01)", together="other u"),
    _key("own_u", "r", "own u", "Reset u to the token's own, and the replay to its initial settings", "own_u"),
    _key("copy_draw", "y", "copy", "Copy the table (tab-separated)", "copy"),
)  # fmt: skip


class DrawScreen(StepScreen):
    tour_name = "draw"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    TITLE_WORDS = "The draw"

    def __init__(self, lab: Lab, inquire: Inquire, index: int) -> None:
        super().__init__(lab, inquire, index)
        self.u: float | None = None  # set by the user
        self.replay = self._first_replay()
        self.draw: Draw | None = None

    def _first_replay(self) -> SamplerSettings:
        own = self.lab.before_step(self.index).sampler
        return dataclasses.replace(own, temperature=1.5 if own.temperature < WARM else 0.5)

    def compose(self) -> ComposeResult:
        yield Bar(id="step-top")
        yield DrawLines()
        yield KeyBar(id="step-keys")

    @property
    def _was_drawn(self) -> bool:
        return self.index < len(self.lab.steps) and was_drawn(self.lab.steps[self.index])

    @property
    def _another_now(self) -> bool:
        """Whether the same u, with the token's own settings, now selects another token than the one that was drawn."""
        if self.u is not None or self.draw is None or self.waiting or not self._was_drawn:
            return False
        return self.draw.landings[0].hit.candidate.id != self.lab.steps[self.index].id

    @property
    def note(self) -> str:
        return "another token now: the model has changed since" if self._another_now else super().note

    def ask(self) -> None:
        request = self.lab.before_step(self.index)
        drawn = self.lab.steps[self.index] if self.index < len(self.lab.steps) else None
        own = drawn.u if drawn is not None else None
        self.inquire(
            self,
            DrawQuestion(
                request,
                (request.sampler, self.replay),
                self.u if self.u is not None else own,
                drawn.seed if drawn is not None and self._was_drawn else self.lab.seed,
                self.index,
            ),
            self._take,
            self.failed,
        )

    def _take(self, draw: Draw) -> None:
        self.draw, self.problem, self.waiting = draw, "", False
        drawn = self.index < len(self.lab.steps)
        own = "now" if self._another_now else "drawn" if self._was_drawn else "could be"
        first = "tried" if self.u is not None else own if drawn else "next"
        self.query_one(DrawLines).show(draw, (first, "replay"))
        self.show_title()

    def table(self) -> Iterable[tuple[str, ...]]:
        return self.query_one(DrawLines).table()

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

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
