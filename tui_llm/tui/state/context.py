"""What the lab's controllers share, and the screens that they open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from textual.screen import Screen
from textual.widget import Widget

from tui_llm.common.display import visible
from tui_llm.facts.engine import Engine
from tui_llm.facts.interventions import Intervention, refusal
from tui_llm.facts.model import Weights
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request
from tui_llm.instruments.ablate.question import Ablation
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.text import NO_TEXT
from tui_llm.tui.state.engine_client import EngineClient
from tui_llm.tui.state.lab import Lab
from tui_llm.tui.state.questions import Questions

Parts = tuple[Intervention, ...]


class SwitchParts(Protocol):
    def __call__(
        self,
        owner: Widget,
        request: Request,
        wanted: Parts,
        done: Callable[[Ablation], object],
        failed: Callable[[str], object],
    ) -> None:
        """Changes the parts even if the screen `owner` closes meanwhile; then neither `done` nor `failed` is called.
        `request`: the text whose target stays. A newer call takes the place of one that is not done: it should start
        from what that one wants (`wanted_parts`)."""
        ...


@runtime_checkable
class FollowsModel(Protocol):
    """A screen that shows what the open model computes, and asks again once there is another."""

    def reopened(self, weights: Weights) -> None:
        """Called when another model, or another checkpoint of a run, was opened."""
        ...


def _nothing() -> None:
    """Nothing is remembered."""


STALE = "another model is open now; wait for its prediction"


class LabContext:
    """The lab's state, the engine's client, and the functions with which a controller affects the rest of the lab.

    The lab screen makes it and gives it to every controller. A controller has no reference to the screen or to other
    controllers: the screen registers here those of their functions that all controllers may call.
    """

    # Registered by the lab screen:
    request_reading: Callable[[], None]  # of the current state
    show_reading: Callable[[Reading], None]  # in every pane
    show_top: Callable[[], None]  # update the top line
    show_history: Callable[[bool], None]  # update the line under the prompt; True if the text changed, not by undo
    refresh_generation: Callable[[], None]  # show new steps or settings before a reading of them arrives
    set_prompt: Callable[[str], None]  # in the editor and in the state
    intervene: Callable[[Parts], None]  # change these parts of the model, and no others
    switch: SwitchParts  # change these parts, and no others, once the model is known to have them
    wanted_parts: Callable[[], Parts | None]  # of a `switch` that is not done yet; None if there is none
    generate: Callable[[int], None]  # so many tokens
    stop_generation: Callable[[], None]
    open_model: Callable[[str], None]  # stops following a run

    def __init__(self, screen: Screen[None], lab: Lab, open_engine: Callable[[], Engine]) -> None:
        self._screen = screen
        self.lab = lab
        self.weights: Weights | None = None  # of the open model; only the screen changes this
        self.reading: Reading | None = None  # that the panes show; only the screen changes this
        self.client = EngineClient(open_engine, screen.post_message)
        self.questions = Questions(self.client, self.warn)
        self.state_changed: Callable[[], object] = _nothing  # the app replaces it: what comes back at the next start
        self.set_timer = screen.set_timer
        self.set_interval = screen.set_interval

    @property
    def model(self) -> str:
        """The name of the open model; empty if there is none."""
        return "" if self.weights is None else self.weights.name

    @property
    def reading_is_current(self) -> bool:
        """Whether the reading that is shown is of the newest request."""
        return self.reading is not None and self.reading.request.number == self.lab.number

    # ── notifications; foreign text reaches them only through these two ──────────────────────────────────────────

    def notify(self, line: str) -> None:
        self._screen.notify(visible(line), markup=False, timeout=3)

    def warn(self, line: str) -> None:
        self._screen.notify(visible(line), markup=False, severity="error", timeout=8)

    def has_text(self) -> bool:
        """Whether there is any token for a screen to show; if not, notifies the user what to do."""
        if self.lab.empty:
            self.notify(NO_TEXT)
        return not self.lab.empty

    def is_open(self) -> bool:
        """Whether a model is open; if not, notifies the user."""
        if self.weights is None:
            self.notify("the model is not open yet")
        return self.weights is not None

    def is_unchanged(self) -> bool:
        """Whether every part of the model is on; if not, notifies the user: what is opened trains a copy."""
        if self.lab.interventions:
            self.notify(refusal("this trains a copy of the model as it is", self.lab.interventions))
        return not self.lab.interventions

    def has_current_reading(self) -> bool:
        """Whether the reading that is shown is of the newest request; if not, notifies the user: its numbers are of an
        older text."""
        if not self.reading_is_current:
            self.notify("the panes are still updating; try again")
        return self.reading_is_current

    def has_reading(self) -> bool:
        """Whether there is any reading; if not, notifies the user."""
        if self.reading is None:
            self.notify("the model is not open yet")
        return self.reading is not None

    def notify_dropped(self) -> None:
        """Notifies the user if logits that the user had changed were dropped."""
        if count := self.lab.dropped:
            self.lab.dropped = 0
            self.notify(
                f"what if: {count} changed logit{'s' if count > 1 else ''} dropped, because the prediction changed"
            )

    # ── the app ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def screens(self) -> Sequence[Screen[Any]]:
        """The screen stack: the lab first, the active screen last."""
        return self._screen.app.screen_stack

    def reopened(self, weights: Weights) -> None:
        """Tells the open screens that a model was opened, so that none mixes the numbers of two."""
        for screen in self.screens:
            if isinstance(screen, FollowsModel):
                deliver(screen, screen.reopened, weights)

    @property
    def is_attached(self) -> bool:
        """Whether the lab screen is in a running app. False once the app is closing, when widgets lose the focus before they
        are removed."""
        return self._screen.is_attached and self._screen.app.is_running

    def push_screen(self, screen: Screen[Any], closed: Callable[[Any], None] | None = None) -> None:
        self._screen.app.push_screen(screen, closed)

    def copy_to_clipboard(self, text: str) -> None:
        self._screen.app.copy_to_clipboard(text)
