"""Other people's checkpoints on the command line: read them in a process of its own, and print them as a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.output import put, put_json, show_progress
from tui_llm.common.display import truncate, visible, visible_token
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import file_size, percent
from tui_llm.facts import report
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.training.run import pins
from tui_llm.training.run.foreign.digests import same_weights
from tui_llm.training.run.foreign.foreign_run import ForeignRun, open_path, remember
from tui_llm.training.run.foreign.foreign_table import ForeignStep, ForeignTable, read_table
from tui_llm.training.run.foreign.readings import ReadingsIndex

if TYPE_CHECKING:
    from tui_llm.facts.pin import Pin

SHOWN = 3  # pins that have a column
NAMED = 24  # cells of a pin's column


def read_checkpoints(run: ForeignRun, wanted: Sequence[Pin] = (), device: str = "auto") -> None:
    """Reads what is not known yet of each checkpoint, with the progress on a terminal's stderr. Raises `UserError`."""
    from tui_llm.training.plan.foreign import ForeignProcess
    from tui_llm.training.run.foreign.readings import complete

    if run.steps() and complete(run, run.use_pins(wanted)):
        return
    process = ForeignProcess(run, wanted, device=device)
    try:
        for record in process.records():
            place = f" ({record.at:,} of {record.of:,})" if record.of else ""
            show_progress(record.text + place)
    finally:
        process.cancel()
        show_progress("")


def show_steps(options: argparse.Namespace) -> None:
    """`tui-llm runs steps`."""
    run = open_path(options.path)
    remember(run)
    if not run.steps():
        raise UserError(
            f"{run.source} has a log but no checkpoints; tui-llm runs curves {options.path} shows its curves"
        )
    asked = [pins.parse(text) for text in options.pin or ()]
    if options.list:
        known = ReadingsIndex(run.path).digests
        groups = same_weights(run.steps(), known, show_progress)
        show_progress("")
        table = read_table(run, groups)
    else:
        read_checkpoints(run, asked, options.device)
        table = read_table(run)
    if options.json:
        put_json(_plain(table))
        return
    put(_text(table, asked))
    for pin in table.pins if options.lens else ():
        put(f"\n{_lens(table, pin)}")


def _text(table: ForeignTable, asked: Sequence[Pin]) -> str:
    shown = [*(pin for pin in table.pins if pin in asked), *(pin for pin in table.pins if pin not in asked)][:SHOWN]
    names = [truncate(visible(pins.text_of(pin)), NAMED) for pin in shown]
    cells = [
        (f"{one.step:,}", visible(one.name), file_size(one.size), "" if one.same is None else f"= step {one.same:,}",
         *(_pin(one, pin) for pin in shown), _head(one))
        for one in table.steps
    ]  # fmt: skip
    header = ("step", "checkpoint", "weights", "same", *names, "induction")
    lines = [report.table(header, cells, left=(1, 3, *range(4, 4 + len(shown))))]
    if len(table.pins) > SHOWN:
        lines.append(f"and {len(table.pins) - SHOWN} more pins: tui-llm probes {visible(str(table.source))}")
    return "\n".join([*lines, *(f"! {visible(note)}" for note in table.notes)])


def _lens(table: ForeignTable, pin: Pin) -> str:
    """The target's p after each layer, a row a checkpoint."""
    found = [(one.step, lens) for one in table.steps if (lens := one.lens(pin)) is not None]
    if not found:
        return f"no logit lens of {visible(pins.text_of(pin))}"
    layers = max((lens.rows for _, lens in found), key=len)
    header = ("step", "target", *("embedding" if row.layer is None else f"layer {row.layer}" for row in layers))
    cells = [
        (f"{step:,}", truncate(visible_token(token_text(lens.target)), NAMED), *(percent(row.probability) for row in lens.rows),
         *[""] * (len(layers) - len(lens.rows)))
        for step, lens in found
    ]  # fmt: skip
    title = f"logit lens after {truncate(visible(pin.prompt), 60)}: p of the target"
    return f"{title}\n{report.table(header, cells, left=(1,))}"


def _pin(one: ForeignStep, pin: Pin) -> str:
    reading = one.of(pin)
    if reading is None or not reading.candidates:
        return "–"
    if reading.probability is not None:
        return f"{percent(reading.probability)}  {reading.loss:.4f}"
    first = reading.candidates[0]
    return f"{truncate(visible_token(first.text), 14)} {percent(first.probability)}"


def _head(one: ForeignStep) -> str:
    head = one.induction
    return "–" if head is None or head.induction is None else f"{head.name} {head.induction:.3f}"


def _plain(table: ForeignTable) -> dict[str, Any]:
    from tui_llm.commands.shared import pin_tables

    steps = [
        {"step": one.step, "name": one.name, "path": str(one.path), "size": one.size, "same_as": one.same, "read": one.read,
         "pins": [
             {"prompt": reading.pin.prompt, "target": reading.pin.target, **(pin_tables.at_json((one.step, reading)) or {})}
             for reading in one.pins
         ],
         "lens": [
             {"prompt": lens.pin.prompt, "target": lens.pin.target, "token": lens.target.hex(),
              "rows": [
                  {"layer": row.layer, "likeliest": row.bytes.hex(), "likeliest_probability": row.likeliest,
                   "probability": row.probability, "rank": row.rank}
                  for row in lens.rows
              ]}
             for lens in one.lenses
         ],
         "induction": None if one.induction is None else
         {"layer": one.induction.layer, "head": one.induction.head, "score": one.induction.induction},
         "sample": one.sample or None, "problems": list(one.problems)}
        for one in table.steps
    ]  # fmt: skip
    return {"path": str(table.source), "steps": steps, "same_weights": [list(group) for group in table.same]}
