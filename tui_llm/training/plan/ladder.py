"""A ladder: runs with one budget, each with one more idea than the one before it. Does not import torch.

A ladder is a file, ladders/NAME.json in the data folder; its rungs are runs named NAME-NUMBER-RUNG, which are made one after
another. What is finished stays so: a ladder that was killed goes on with the first rung that is not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout

from tui_llm.common import files, paths, storage
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.data import corpora
from tui_llm.llm.hub import lookup
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import cost, fields, ladder_rungs, launch
from tui_llm.training.plan.step_time import Measurement
from tui_llm.training.run.run import Run, check_name
from tui_llm.training.run.settings import EXECUTION, MOST_WARM_UP, PRETRAINING, TrainingSettings, preset

UNITS = {"steps": "steps", "minutes": "minutes", "flops": "FLOPs"}
VERSION = 1
LEAST, MOST = 10, 10**9  # steps of a rung: fewer say nothing
EVALUATIONS = 40  # of a rung
CHECKPOINTS = 10
FOLLOW_FROM_STEPS = ("eval_every", "checkpoint_every", "warmup_steps", "momentum_warmup_steps", "ema_decay")
PATIENCE = 3.0  # seconds


class DamagedLadder(UserError):
    """A ladder's file is there, but not what this version writes."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """What a ladder was asked for. `given` are settings of all its runs, as text; `amount` is the budget of each run, in `unit`."""

    name: str
    corpus: tuple[str, ...]
    preset: str
    unit: str
    amount: float
    rungs: tuple[str, ...] = ladder_rungs.DEFAULT
    given: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"

    def run(self, at: int) -> Run:
        """The run of rung `at`, which may not exist yet."""
        return Run(paths.runs_dir() / f"{self.name}-{at}-{self.rungs[at]}")

    @property
    def budget(self) -> str:
        """Such as `600 steps`."""
        return f"{self.amount:,g} {UNITS[self.unit]}" if self.amount < 1e7 else f"{self.amount:.2e} {UNITS[self.unit]}"


def check(ladder: Ladder) -> None:
    """Raises `UserError` if the ladder can't be made."""
    if ladder.unit not in UNITS:
        raise UserError(f"the budget is in {ladder.unit}; give --steps, --minutes or --flops")
    if not 0 < ladder.amount < 1e30:
        raise UserError(f"the budget is {ladder.amount:g} {UNITS[ladder.unit]}; give more than 0")
    if ladder.unit == "steps" and not (LEAST <= ladder.amount <= MOST and ladder.amount == int(ladder.amount)):
        raise UserError(f"the budget is {ladder.amount:g} steps; give a whole number from {LEAST} to {MOST:,}")
    if not ladder.rungs:
        raise UserError(f"name rungs: {', '.join(rung.name for rung in ladder_rungs.RUNGS)}")
    if len(set(ladder.rungs)) < len(ladder.rungs):
        raise UserError("a rung is named twice; give each once")
    check_name(ladder.name)
    for at in range(len(ladder.rungs)):
        ladder_rungs.find(ladder.rungs[at])
        check_name(ladder.run(at).name)
    if not ladder.corpus:
        raise UserError(f"name a text file or a folder to train on, or {' or '.join(corpora.NAMES)}")


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def path_of(name: str) -> Path:
    """Raises `UserError` if `name` can't name a ladder."""
    return paths.data_dir() / "ladders" / f"{check_name(name)}.json"


def names() -> list[str]:
    """The ladders on this machine, the newest first."""
    found = []
    for path in (paths.data_dir() / "ladders").glob("*.json"):
        with suppress(OSError):  # deleted meanwhile
            found.append((path.stat().st_mtime, path.stem))
    return [name for _, name in sorted(found, reverse=True)]


def find(name: str) -> Ladder:
    """Raises `UserError` if there is no such ladder, `DamagedLadder` if its file is damaged."""
    path = path_of(name)
    if not path.is_file():
        known = ", ".join(names()[:5])
        raise UserError(f"there is no ladder {name}; name a text to start it{f' (ladders: {known})' if known else ''}")
    try:
        raw = read_json(path)
    except UserError as error:
        raise DamagedLadder(f"{error}; {_delete_it(name)}") from error
    try:
        if raw["version"] > VERSION:
            raise UserError(f"ladder {name} was made by a newer tui-llm; update tui-llm to use it")
        found = Ladder(
            name, tuple(map(str, raw["corpus"])), str(raw["preset"]), str(raw["unit"]), float(raw["amount"]),
            tuple(map(str, raw["rungs"])), {str(key): str(value) for key, value in raw["given"].items()}, str(raw["device"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedLadder(f"{path} is not a ladder ({error!r}); {_delete_it(name)}") from error
    try:
        check(found)
    except UserError as error:
        raise DamagedLadder(f"{path} is not a ladder: {error}; {_delete_it(name)}") from error
    return found


def _delete_it(name: str) -> str:
    return f"delete it (tui-llm ladder --name {name} --delete), and start the ladder again"


def keep(ladder: Ladder) -> None:
    """Writes the ladder's file; one of that name of which nothing was trained yet is replaced.

    Raises `UserError` if there is another one of that name, if a run has the name of a rung, if a rung changes nothing, or if the
    file can't be written.
    """
    check(ladder)
    path = path_of(ladder.name)
    before = find(ladder.name) if path.exists() else None
    if before == ladder:
        return  # its rungs were checked when it was begun
    _check_rungs(ladder)
    if before is not None and (climbed(ladder.name) or any(before.run(at).exists() for at in range(len(before.rungs)))):
        raise UserError(
            f"ladder {ladder.name} was started with other settings; go on with it (--name {ladder.name} alone), delete it "
            f"(--name {ladder.name} --delete), or give another --name"
        )
    for at in range(len(ladder.rungs)):
        if ladder.run(at).exists():
            raise UserError(f"run {ladder.run(at).name} exists already and is not of this ladder; give another --name, or rename that run")  # fmt: skip
    value = {"version": VERSION, **dataclasses.asdict(ladder)}
    del value["name"]
    try:
        files.write_json(path, value)
    except (OSError, UserError) as error:
        raise UserError(f"can't start the ladder {ladder.name}: {error}") from error


def _check_rungs(ladder: Ladder) -> None:
    """Raises `UserError` if a rung can't be trained, or is not what its sentence says."""
    plain, shape, found = _plain(ladder, 100)  # any number of steps
    other = ladder_rungs.other_recipe(plain)
    if ladder.rungs[0] == ladder_rungs.FIRST and other:
        raise UserError(f"the rung gpt2 is GPT-2's recipe with AdamW, but here all rungs have {other}; leave that out, or give another preset, such as small")  # fmt: skip
    before = plain
    for at, name in enumerate(ladder.rungs):
        made = _rung(ladder, at, plain, shape, found)[0]
        if made == before and name != ladder_rungs.FIRST:
            raise UserError(f"the rung {name} changes nothing: the preset {ladder.preset} or a setting has it already; leave it out")  # fmt: skip
        before = made
    if before.shuffle_documents == "on":  # the last rung has what any has
        corpora.check_documents([corpora.place(one) for one in ladder.corpus], before.text_format)


def delete(name: str) -> int:
    """Deletes a ladder and its runs; of one whose file is damaged, only that file. Returns the number of runs that were deleted.

    Raises `UserError` if there is no such ladder, if it or one of its runs is being trained, if it can't be deleted, or if it is of a newer version.
    """
    try:
        runs = runs_of(find(name))
    except DamagedLadder:
        runs = []
    with held(name):
        for run in runs:
            if run.alive() or run.status().alive:
                raise UserError(f"run {run.name} is being trained; stop it first (tui-llm stop {run.name})")
        for run in runs:
            run.delete()
        path = path_of(name)
        try:
            for one in (path.with_suffix(".log"), path, path.with_suffix(".lock")):
                storage.unlink(one, missing_ok=True)
        except OSError as error:
            raise UserError(f"can't delete the ladder {name}: {error.strerror or error}") from error
    return len(runs)


def runs_of(ladder: Ladder) -> list[Run]:
    """The runs of a ladder that were made. A run that only has such a name is not among them."""
    return [ladder.run(at) for at in range(len(ladder.rungs)) if ladder.run(at).exists() and not _other(ladder, at)]


@contextmanager
def held(name: str, patience: float = PATIENCE) -> Iterator[None]:
    """While the body runs, no other process takes the ladder's rungs. Raises `UserError` if one does, for more than `patience`
    seconds: `climbed` has the lock for a moment."""
    lock = storage.Lock(path_of(name).with_suffix(".lock"))
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise UserError(f"ladder {name} is climbed by another process; watch it: tui-llm ladder --name {name} --show") from None  # fmt: skip
    except OSError as error:
        raise UserError(f"can't start the ladder {name}: {files.cannot_write(path_of(name), error)}") from error
    try:
        yield
    finally:
        lock.release()


def climbed(name: str) -> bool:
    """Whether a process takes the ladder's rungs. Not known, and False, where the lock can't be used."""
    lock = storage.Lock(path_of(name).with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings_of(ladder: Ladder, at: int, steps: int) -> TrainingSettings:
    """The settings of rung `at` in a run of `steps` steps. Raises `UserError`."""
    return _resolved(ladder, at, steps)[0]


_Resolved = tuple[TrainingSettings, GPTConfig, lookup.LocalModel | None]


def _resolved(ladder: Ladder, at: int, steps: int) -> _Resolved:
    return _rung(ladder, at, *_plain(ladder, steps))


def _plain(ladder: Ladder, steps: int) -> _Resolved:
    """The settings that all rungs begin with, the model's shape, and the model that they start from, if any."""
    base = dataclasses.replace(
        preset(ladder.preset),
        eval_every=max(1, round(steps / EVALUATIONS)),
        checkpoint_every=max(1, round(steps / CHECKPOINTS)),
    )
    given = {**_warm_up_of_runs(ladder, base), **ladder.given, "steps": steps}
    if str(given.get("objective", PRETRAINING)) != PRETRAINING:
        raise UserError("the rungs of a ladder learn text; leave the objective out")
    if base.minutes:
        raise UserError(
            f"the preset {ladder.preset} picks model and steps by its time; give another preset, such as small"
        )
    return fields.resolve_settings(given, base, ladder.corpus)


def _warm_up_of_runs(ladder: Ladder, base: TrainingSettings) -> dict[str, int]:
    """The warm-ups that the ladder's first run has as its preset `base` has them, where a learning rate is given.

    Earlier versions did not shorten a warm-up then (`fields.adapted`). The rungs of a ladder that was begun so keep it, since
    runs with another warm-up don't compare.
    """
    if "learning_rate" not in ladder.given:
        return {}
    for at in range(len(ladder.rungs)):
        try:
            first = ladder.run(at).config().settings
        except UserError:  # not made yet, or damaged
            continue
        changed = ladder_rungs.names_changed(first, ladder.rungs[: at + 1])
        return {
            name: getattr(base, name)
            for name in MOST_WARM_UP
            if name not in changed and getattr(first, name) == getattr(base, name)
        }
    return {}


def _rung(
    ladder: Ladder, at: int, plain: TrainingSettings, shape: GPTConfig, found: lookup.LocalModel | None
) -> _Resolved:
    made = ladder_rungs.changed(plain, ladder.rungs[: at + 1])
    if found is None:
        shape = cost.shape(made, shape.vocabulary)
    return made, shape, found


def steps_of(ladder: Ladder, at: int, measuring: Callable[[Measurement], object] = lambda _: None) -> int:
    """The steps of rung `at` that the budget pays for. With a budget of minutes, measures a few real steps, which takes up to
    20 s; `measuring` is given what can be cancelled. Raises `UserError` if the budget is too small, or nothing was measured."""
    if ladder.unit == "steps":
        found = ladder.amount
    else:
        made, shape, _ = _resolved(ladder, at, 1000)
        whole = cost.cost(made, shape)
        if ladder.unit == "flops":
            found = ladder.amount / (whole.flops / made.steps)
        else:
            measurement = Measurement(made, shape, ladder.device)
            measuring(measurement)
            try:
                found = 60 * ladder.amount * measurement.take().tokens_per_second / whole.step_tokens
            finally:
                measurement.cancel()
    if found < LEAST:
        raise UserError(
            f"{ladder.budget} are {found:.1f} steps of {ladder.rungs[at]}, too few to say anything; give more, or a smaller preset"
        )
    return min(int(found), MOST)


def prepare(ladder: Ladder, at: int, measuring: Callable[[Measurement], object] = lambda _: None) -> Run:
    """The run of rung `at`: the one that exists, or a new one. Raises `UserError` if a run of its name is another one."""
    run = ladder.run(at)
    if run.exists():
        if why := _other(ladder, at):
            raise UserError(why)
        return run
    made, _, model = _resolved(ladder, at, steps_of(ladder, at, measuring))
    return launch.create(
        run.name, list(ladder.corpus), made, preset=ladder.preset, device=ladder.device, model=model.folder if model else None
    )  # fmt: skip


def _other(ladder: Ladder, at: int) -> str:
    """Why the run that exists is not rung `at`, though it has its name; empty if it is."""
    run = ladder.run(at)
    try:
        config = run.config()
    except UserError as error:
        return str(error)
    why = f"run {run.name} is not of this ladder: delete or rename it, or give another --name"
    if config.corpus != tuple(map(corpora.place, ladder.corpus)) or config.preset != ladder.preset:
        return why
    try:
        wanted = settings_of(ladder, at, int(ladder.amount) if ladder.unit == "steps" else config.settings.steps)
    except UserError:  # the text or a model is gone: the run says so when it goes on
        return ""
    # What follows from the number of steps, which a budget of minutes or FLOPs does not say once the rung was continued. Warm-ups
    # follow by another rule in earlier versions. All but what was given, and what only one of the two has at all.
    follows = tuple(MOST_WARM_UP) if ladder.unit == "steps" else FOLLOW_FROM_STEPS
    given = ladder.given.keys() - ladder_rungs.names_changed(wanted, ladder.rungs[: at + 1])
    follows = tuple(
        name
        for name in follows
        if name not in given and (getattr(config.settings, name) > 0) == (getattr(wanted, name) > 0)
    )
    same = dataclasses.replace(
        config.settings,
        steps=wanted.steps,  # of a rung that was continued
        batch_size=wanted.batch_size,  # smaller since, where it did not fit into memory
        grad_accumulation_steps=wanted.grad_accumulation_steps,
        eval_batches=wanted.eval_batches,
        **{name: getattr(wanted, name) for name in (*follows, *EXECUTION)},
    )
    return "" if same == wanted else why


def left(ladder: Ladder) -> list[int]:
    """The rungs that are not finished. Raises `UserError` if a run that has the name of one is another one."""
    found = []
    for at in range(len(ladder.rungs)):
        run = ladder.run(at)
        if run.exists() and (why := _other(ladder, at)):
            raise UserError(why)
        if not run.exists() or run.status().state != "finished":
            found.append(at)
    return found


def as_json(ladder: Ladder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(ladder)))
    return found
