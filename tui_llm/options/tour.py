"""The tour."""

from __future__ import annotations

from tui_llm.options import AddCommand
from tui_llm.options.shared import model_options


def add(command: AddCommand) -> None:
    tour = command("tour", "open the app with the tour: pre-training in ten steps, each done by you", "tour")
    model_options(tour)
    tour.add_argument("--prompt", default=None, metavar="TEXT", help="the text to begin with")
    tour.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    tour.add_argument("--again", action="store_true", help="from the beginning, not where it was left")
    tour.add_argument(
        "--json", action="store_true", help="open nothing; print the steps and what is done, for programs"
    )
