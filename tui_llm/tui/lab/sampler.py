"""The lab's sampler: its keys for temperature and cuts, and the form with all settings."""

from __future__ import annotations

from tui_llm.facts.sampler import SamplerSettings
from tui_llm.tui.state.context import LabContext


class SamplerController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab

    def temperature(self, direction: int) -> None:
        self.lab.change_temperature(direction)
        self._changed()

    def top_p(self, direction: int) -> None:
        self.lab.change_top_p(direction)
        self._changed()

    def top_k(self, direction: int) -> None:
        self.lab.change_top_k(direction)
        self._changed()

    def min_p(self, direction: int) -> None:
        self.lab.change_min_p(direction)
        self._changed()

    def open_form(self) -> None:
        from tui_llm.tui.instruments.sampler import SamplerScreen

        def chosen(settings: SamplerSettings | None) -> None:
            if settings is not None:
                self.lab.sampler = settings
                self._changed()

        self.context.push_screen(SamplerScreen(self.lab.sampler, self.lab.switched_off), chosen)

    def _changed(self) -> None:
        """Requests a reading. The panes show the new settings together with it, in one repaint, or before it if it is
        late."""
        if self.context.weights is None:
            self.context.refresh_generation()
        self.context.request_reading()
