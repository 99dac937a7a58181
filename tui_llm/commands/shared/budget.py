"""`tui-llm train --minutes`: a time budget instead of a number of steps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.output import put_sentences
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.llm.model.shape import GPTConfig
    from tui_llm.training.plan.budget import Plan
    from tui_llm.training.run.run import Run
    from tui_llm.training.run.settings import TrainingSettings


def preset_name(options: argparse.Namespace, given: Mapping[str, Any], default: str) -> str:
    """The preset of a new run: with `--minutes` alone, the one whose model is picked. Raises `UserError` if options contradict
    the budget."""
    from tui_llm.training.plan import budget
    from tui_llm.training.run.settings import BUDGET, from_fields

    minutes = from_fields({"minutes": given["minutes"]}).minutes if "minutes" in given else 0.0
    name = options.preset or (BUDGET if minutes else default)
    if name == BUDGET and "minutes" in given and not minutes:
        raise UserError(f"the preset {BUDGET} needs a time: --minutes 5")
    if minutes or name == BUDGET:
        if (why := budget.conflict(given, name)) is not None:
            raise UserError(why[1])
        if minutes:
            budget.check(minutes)
    return name


def plan_run(
    options: argparse.Namespace, given: Mapping[str, Any], name: str, settings: TrainingSettings, shape: GPTConfig
) -> Plan:
    """Measures the machine and returns the plan of a run with a time budget. Raises `UserError`."""
    from tui_llm.training.plan import budget
    from tui_llm.training.run.settings import BUDGET

    pick = name == BUDGET and not settings.from_model
    if not options.corpus:
        raise UserError("name the text to train on: its vocabulary and its length decide what fits the time")
    shown = not options.json and sys.stderr.isatty()
    if shown:
        print("measuring the machine …", file=sys.stderr, flush=True)
    return budget.plan(
        settings,
        shape,
        options.corpus,
        options.device or "auto",
        pick=pick,
        schedule=name == BUDGET,
        own_tokenizer="tokenizer" in given,
        say=(lambda line: print(f"  {line}", file=sys.stderr, flush=True)) if shown else (lambda _: None),
    )


def show_plan(plan: Plan, name: str) -> None:
    """Prints what was picked and why."""
    from tui_llm.training.plan import budget

    put_sentences(("budget", ""), budget.rows(plan, name), left=(0, 1))


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan for `--json`."""
    from dataclasses import asdict

    from tui_llm.training.plan.budget import finite

    return {
        "seconds": 60 * plan.settings.minutes,
        "measured_seconds": plan.seconds,
        "device": plan.device,
        "options": [
            {"settings": asdict(one.settings), "parameters": one.shape.parameters(), "tokens_per_second": one.tokens_per_second,
             "steps": one.steps, "tokens": one.tokens, "bits_per_byte": finite(one.bits_per_byte), "spread": one.spread}
            for one in plan.options
        ],
    }  # fmt: skip


def extend(run: Run, given: dict[str, Any]) -> None:
    """Gives a resumed run another time budget, if `--minutes` is given; removes that from `given`. Raises `UserError`."""
    if "minutes" not in given:
        return
    from tui_llm.training.plan import budget
    from tui_llm.training.run.settings import from_fields

    if "steps" in given:
        raise UserError("--minutes and --steps both say when the run ends; give one of them")
    minutes = from_fields({"minutes": given.pop("minutes")}).minutes
    if minutes != run.config().settings.minutes:
        budget.extend(run, minutes)
