"""Readings: requests them, marks the panes that wait for one, and shows it in all panes in one repaint."""

from __future__ import annotations

from textual.timer import Timer

from tui_llm.facts.reading import Reading
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.over import OverLab
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.lab.panes.panes import LabPanes
from tui_llm.tui.state.context import LabContext

LATE_AFTER = 0.05  # seconds: a reading that arrives sooner is shown together with the new state, in one repaint
STALE_AFTER = 0.15  # seconds: no pane is marked stale if the reading arrives sooner


class ReadingsController:
    def __init__(self, context: LabContext, prompt: PromptEditor, panes: LabPanes) -> None:
        self.context, self.lab, self.prompt, self.panes = context, context.lab, prompt, panes
        self._stale_timer: Timer | None = None

    def request(self) -> None:
        """Requests a reading of the current state."""
        self.context.state_changed()
        if self.context.weights is None:
            return
        seen = self.lab.history.next_undo
        self.context.client.read(self.lab.request())
        self.context.notify_dropped()
        self.context.show_history(self.lab.history.next_undo is not seen)
        if self._stale_timer is None:
            self._stale_timer = self.context.set_timer(LATE_AFTER, self._show_state)

    def _show_state(self) -> None:
        self._stale_timer = self.context.set_timer(STALE_AFTER - LATE_AFTER, self._mark_stale)
        self.context.refresh_generation()

    def _mark_stale(self) -> None:
        self._stale_timer = None
        if not self.context.reading_is_current:
            for pane in self.panes.of_reading:
                pane.mark_stale(True)

    def is_of_the_lab(self, reading: Reading) -> bool:
        """False for one of a model that is no longer open, and for one with tokens of a stream that was stopped before the lab
        took them; then another one is requested."""
        if reading.weights != self.context.weights:
            return False
        request = reading.request
        if request.number == self.lab.number and request.continuation != self.lab.continuation:
            self.request()
            return False
        return True

    def show(self, reading: Reading) -> None:
        """Shows the reading in every pane."""
        self.context.reading = reading
        current = self.context.reading_is_current
        if current and self._stale_timer is not None:
            self._stale_timer.stop()
            self._stale_timer = None
        self.prompt.mark(reading.span if current and self.lab.position is not None else None)
        for pane in self.panes.of_reading:
            pane.show(reading)
            pane.put_title()
            if current:
                pane.mark_stale(False)
        for screen in self.context.screens:
            if isinstance(screen, OverLab):
                deliver(screen, screen.mark_seen)
