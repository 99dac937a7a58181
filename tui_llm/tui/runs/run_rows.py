"""The rows of the table of runs: plain numbers and words, and the cells made of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from rich.text import Text

from tui_llm.common.display import truncate, visible
from tui_llm.common.errors import UserError
from tui_llm.training.run.foreign.foreign_curves import ForeignReader
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import last_validation, last_written, sampled_losses, unreadable
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.columns import spark
from tui_llm.tui.runs.words import state_words

SPARK = 12  # cells of a sparkline
PARENT = 20  # cells of the run and step that a branch begins with
PROBLEM = 40  # cells of a run's problem, in place of its losses; watching the run shows all of it
LOG_PARTS = 4  # parts of another program's log that are read at a time
MARK = "◆"  # before the name of a run that the chart also shows
COLUMNS = ("run", "state", "step", "loss", "val loss", "loss so far", "size", "preset")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run's row, as plain numbers and words."""

    name: str
    state: str
    step: int
    steps: int
    loss: float | None
    val_loss: float | None
    losses: tuple[float, ...]
    size: int
    preset: str
    changed: float
    alive: bool
    parent: str = ""  # of a branch: `tales@200`
    problem: str = ""  # what is wrong with its files, in one line of foreign text


class RowReader:
    """Reads the rows of the table repeatedly; a run's metrics only if they have changed."""

    def __init__(self) -> None:
        self._losses: dict[str, tuple[tuple[int, int, int], float | None, tuple[float, ...]]] = {}
        self._logs: dict[str, ForeignReader] = {}

    def read(self, run: Run) -> RunRow:
        """Returns the run's row. Never raises: a row also shows what is wrong with a run."""
        try:
            return self._foreign(run) if isinstance(run, ForeignRun) else self._read(run)
        except Exception as error:  # any error is shown in this row, so that the other rows are shown
            status = unreadable(run, error)
            return RunRow(run.name, status.state, 0, 0, None, None, (), 0, "?", 0.0, False, "", status.problem)

    def _foreign(self, run: ForeignRun) -> RunRow:
        """The row of a run of another program. Of a long log, each call reads the next part."""
        if run.name not in self._logs:
            self._logs[run.name] = ForeignReader(run)
        reader = self._logs[run.name]
        snapshot = reader.read()
        for _ in range(LOG_PARTS):
            if not snapshot.reading:
                break
            snapshot = reader.read()
        status, train = snapshot.status, snapshot.train
        few = train if len(train) <= SPARK else [train[i * (len(train) - 1) // (SPARK - 1)] for i in range(SPARK)]
        problem = status.problem or run.status().problem
        return RunRow(
            run.name, status.state, status.step, status.steps, train[-1][1] if train else None,
            snapshot.last_validation[1] if snapshot.last_validation else None, tuple(loss for _, loss in few), run.size(),
            reader.kind, 0.0, False, "", problem,
        )  # fmt: skip

    def _read(self, run: Run) -> RunRow:
        mark = _mark(run)
        known = self._losses.get(run.name)
        if known is None or known[0] != mark:
            known = (mark, last_validation(run.metrics_path), tuple(sampled_losses(run.metrics_path, SPARK)))
            self._losses[run.name] = known
        return row_of(run, known[1], known[2])


def _mark(run: Run) -> tuple[int, int, int]:
    """A value that changes when the run's metrics file does."""
    try:
        stat = run.metrics_path.stat()
    except OSError:
        return (0, 0, 0)
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)


def row_of(run: Run, val_loss: float | None, losses: tuple[float, ...]) -> RunRow:
    status, last = run.status_and_metric()
    preset, parent = "?", ""
    with suppress(UserError):
        config = run.config()
        preset, parent = config.preset, f"{config.parent}@{config.parent_step}" if config.parent else ""
    try:
        size = run.size()
    except OSError:  # a checkpoint was deleted meanwhile
        size = 0
    return RunRow(
        run.name, status.state, status.step, status.steps, last.loss if last else None, val_loss,
        losses, size, preset, last_written(run), status.alive, parent, status.problem,
    )  # fmt: skip


def size_text(size: int) -> str:
    for unit, letters in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {letters}"
    return f"{size} B"


def cells(row: RunRow, marked: bool = False) -> tuple[Text, ...]:
    words, _style = state_words(row.state)
    name = Text(f"{MARK} {visible(row.name)}" if marked else visible(row.name))
    if row.parent:
        name.append(f" ← {truncate(visible(row.parent), PARENT)}", "dim")
    return (
        name,
        Text(words),
        Text(f"{fmt.count(row.step)}/{fmt.count(row.steps) if row.steps else '–'}", justify="right"),
        Text("" if row.loss is None else fmt.number(row.loss, 3), justify="right"),
        Text("" if row.val_loss is None else fmt.number(row.val_loss, 3), justify="right"),
        Text(truncate(f"! {visible(row.problem)}", PROBLEM)) if row.problem else Text(spark(row.losses)),
        Text(size_text(row.size), justify="right"),
        Text(visible(row.preset)),
    )
