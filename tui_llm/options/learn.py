"""Learn this, without the screen."""

from __future__ import annotations

from tui_llm.llm.recipe import OPTIMISERS, USUAL
from tui_llm.options import AddCommand
from tui_llm.options.shared import force_option, json_option, number, prompt_options, whole


def add(command: AddCommand) -> None:
    learn = command(
        "learn", "optimiser steps on one prompt and target, on a copy of the weights: before and after", "learn"
    )
    learn.add_argument("prompt", metavar="PROMPT")
    learn.add_argument("--target", required=True, metavar="TEXT", help="what should come next; mind the leading space, as in ' mat'")  # fmt: skip
    learn.add_argument("--steps", type=whole, default=1, metavar="N", help="how many steps (default 1)")
    learn.add_argument(
        "--optimiser", default="sgd", choices=tuple(OPTIMISERS), help="sgd (plain) or adamw (default sgd)"
    )
    usual = ", ".join(f"{size:g} for {name}" for name, size in USUAL.items())
    learn.add_argument("--learning-rate", type=number, metavar="R", help=f"the step size (default {usual})")
    learn.add_argument("--also", action="append", metavar="PROMPT=>TARGET", help="see what becomes of this one, which is not learned (the target may be left out); may be given again")  # fmt: skip
    learn.add_argument("--pins", action="store_true", help="the same for your pinned prompts")
    learn.add_argument("--keep", metavar="FOLDER", help="write what was learned as a new model folder")
    force_option(learn)
    prompt_options(learn)
    json_option(learn)
