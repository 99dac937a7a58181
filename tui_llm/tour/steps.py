"""The ten steps of the tour, in order."""

from __future__ import annotations

from tui_llm.tour import steps_model, steps_numbers, steps_text
from tui_llm.tour.step import Step

STEPS: tuple[Step, ...] = (*steps_text.steps(), *steps_numbers.steps(), *steps_model.steps())
