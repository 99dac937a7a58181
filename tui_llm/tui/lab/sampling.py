"""The lab's sampler: its keys for temperature and cuts, and the form with all settings."""

from __future__ import annotations

from tui_llm.facts.sampler import SamplerSettings
from tui_llm.tui.lab.panes.generate import GeneratePane
from tui_llm.tui.state.base import LabBase


class Sampling(LabBase):
    def action_temperature(self, direction: int) -> None:
        self.lab.warm(direction)
        self._sampler_changed()

    def action_top_p(self, direction: int) -> None:
        self.lab.widen(direction)
        self._sampler_changed()

    def action_top_k(self, direction: int) -> None:
        self.lab.narrow(direction)
        self._sampler_changed()

    def action_min_p(self, direction: int) -> None:
        self.lab.raise_floor(direction)
        self._sampler_changed()

    def action_sampler_form(self) -> None:
        from tui_llm.tui.instruments.sampler import SamplerScreen

        def chosen(settings: SamplerSettings | None) -> None:
            if settings is not None:
                self.lab.sampler = settings
                self._sampler_changed()

        self.app.push_screen(SamplerScreen(self.lab.sampler, self.lab.set_aside), chosen)

    def _sampler_changed(self) -> None:
        """Requests a reading. The panes show the new settings together with it, in one repaint, or before it if it is
        late."""
        if self.weights is None:
            self.query_one(GeneratePane).show(None)
        self.ask()
