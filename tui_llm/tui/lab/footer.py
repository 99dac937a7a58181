"""The footer of the lab: the keys of the focused pane, or of the prompt."""

from __future__ import annotations

from tui_llm.tui.kit.command import PANES
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.lab.keys import footer, further
from tui_llm.tui.lab.panes.panes import LabPanes
from tui_llm.tui.lab.tour import TourController


class FooterController:
    """`bar` is the footer's widget. While the tour is unused, its key stays."""

    def __init__(self, bar: KeyBar, panes: LabPanes, tour: TourController) -> None:
        self.bar, self.panes, self.tour = bar, panes, tour

    def show(self, place: str) -> None:
        """Shows the keys of `place`, the prompt or a pane."""
        commands = self.tour.in_footer(footer(place))
        if place in PANES:
            self.bar.show(commands, self.panes[place], further(place))
        else:
            self.bar.show(commands)
