"""The commands of the tour: they work everywhere, while typing too."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command

GROUP, PAIRS = "Tour", "tour_pairs"


def _tour(id: str, keys: str, label: str, tooltip: str, action: str, footer: tuple[str, ...] = ()) -> Command:
    return Command(id, keys, label, tooltip, GROUP, "app", action, footer, priority=True, importance=-1)


TOUR_COMMANDS: tuple[Command, ...] = (
    _tour("tour", "f2", "tour", "Take the tour, go on with it, or close it: you can leave at any time", "tour", ("*",)),
    _tour("tour_back", "f3", "back", "Go back in the tour", "tour_move(-1)"),
    _tour("tour_next", "f4", "skip", "Skip what the tour asks for, and go on", "tour_move(1)"),
    _tour("tour_answer", "f5", "answer", "Answer what the tour asks: a guess, a file, pairs of your own", "tour_answer"),
    Command("tour_start", "ctrl+s", "learn", "Fine-tune a copy of the model on these pairs", "Pairs", PAIRS, "start", priority=True),
    Command("leave_tour_pairs", "escape", "cancel", "Back, nothing is learned", "Pairs", PAIRS, "leave"),
)  # fmt: skip
