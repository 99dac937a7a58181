"""The commands of all screens, collected from the `KEYS` of each: for the help screen, the tour, docs/keys.md and the test
that finds clashes. Imports every screen, so it is imported only when it is needed.

The order is that of the help screen and docs/keys.md; a group stands where its first command does.
"""

from __future__ import annotations

from tui_llm.tui import help
from tui_llm.tui.instruments import letters, merges, pairs, sampler, scratch, swap, temperatures, vocabularies
from tui_llm.tui.instruments.draws import draw, draw_many
from tui_llm.tui.instruments.inside import keys as inside
from tui_llm.tui.instruments.learn import learn
from tui_llm.tui.instruments.tree import keys as tree
from tui_llm.tui.lab import keys as lab
from tui_llm.tui.lab.panes import logits, loss
from tui_llm.tui.models import info, models
from tui_llm.tui.runs import batch, compare, new_run, pin_history, runs, samples, watched_run
from tui_llm.tui.tour import pairs as tour_pairs
from tui_llm.tui.tour import pane as tour

COMMANDS = (
    *lab.KEYS,
    *merges.KEYS,
    *vocabularies.KEYS,
    *letters.KEYS,
    *pairs.KEYS,
    *swap.KEYS,
    *tree.KEYS,
    *models.KEYS,
    *info.KEYS,
    inside.OPEN,
    *inside.KEYS,
    *watched_run.KEYS,
    *batch.KEYS,
    *samples.KEYS,
    *pin_history.KEYS,
    *runs.KEYS,
    *new_run.KEYS,
    *help.KEYS,
    *compare.KEYS,
    *logits.KEYS,
    *sampler.KEYS,
    *temperatures.KEYS,
    *scratch.KEYS,
    *loss.KEYS,
    *learn.KEYS,
    *draw.KEYS,
    *draw_many.KEYS,
    *tour.KEYS,
    *tour_pairs.KEYS,
)
BY_ID = {command.id: command for command in COMMANDS}
