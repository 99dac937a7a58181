"""Make a branch: a new run that begins with another run's state after one of its steps. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.llm.data import corpora
from tui_llm.training.plan import launch, replay, start
from tui_llm.training.run import pins
from tui_llm.training.run.branch import BranchOrigin
from tui_llm.training.run.run import Run, check_name
from tui_llm.training.run.settings import TrainingSettings, from_fields

# What a model is: the state of another one does not fit.
OF_THE_MODEL = (
    "layers",
    "heads",
    "width",
    "block_size",
    "tokenizer",
    "from_model",
    "arch",
    "attention_only",
    "objective",
)


def free_name(parent: str, step: int) -> str:
    """A name for a branch that no run has yet, such as `tales-at-200` or `tales-at-200-2`."""
    base = f"{parent[:40]}-at-{step}"
    name, at = base, 1
    while (paths.runs_dir() / name).exists():
        at += 1
        name = f"{base}-{at}"
    return name


def settings(parent: Run, step: int, given: Mapping[str, Any]) -> TrainingSettings:
    """The settings of a branch of `parent` after `step` steps: the parent's, some of them replaced by `given`.

    Raises `UserError` if the parent has not taken that step, or a setting is not valid or belongs to the model.
    """
    config = parent.config()
    if why := replay.problem(config):
        raise UserError(f"run {parent.name} can't be branched: {why}")
    last = parent.last_metric()
    if step < config.parent_step:
        raise UserError(
            f"run {parent.name} is a branch of {config.parent} after step {config.parent_step:,}; branch from that run"
        )
    if step < 0 or step > (last.step if last else 0):
        raise UserError(
            f"run {parent.name} has taken {last.step if last else 0:,} steps; a branch begins after one of them, not {step:,}"
        )
    made = from_fields(dict(given), config.settings)
    changed = [name for name in OF_THE_MODEL if getattr(made, name) != getattr(config.settings, name)]
    if changed:
        names = ", ".join(name.replace("_", " ") for name in changed)
        raise UserError(
            f"a branch continues its parent's model, whose {names} can't change; leave that out, or start a new run"
        )
    if made.steps <= step:
        raise UserError(
            f"the branch begins after step {step:,}; give more steps in total than that, not {made.steps:,}"
        )
    return made


def corpus(parent: Run, exclude: Sequence[str]) -> list[str]:
    """The parent's corpus without the files in `exclude`: paths, or names of files in it. A folder becomes its files.

    Raises `UserError` if there is no such file, or nothing is left.
    """
    places = list(parent.config().corpus)
    left_out: set[str] = set()
    for wanted in exclude:
        found = {str(file) for file in corpora.files(places) if _is(file, wanted)} | {
            one for one in places if one == wanted
        }
        if not found:
            names = ", ".join(sorted({Path(place).name for place in places})[:5])
            raise UserError(f"the corpus of run {parent.name} has no file {wanted}; it has: {names}")
        left_out |= found
    if not left_out:
        return places
    kept: list[str] = []
    for place in places:
        files = [str(file) for file in corpora.files([place])]
        if left_out.isdisjoint({place, *files}):
            kept.append(place)
        elif place not in left_out and not corpora.is_named(place):
            kept += [file for file in files if file not in left_out]
    if not kept:
        raise UserError(f"without {', '.join(exclude)} the corpus of run {parent.name} is empty; name another text")
    return kept


def file_names(parent: Run) -> list[str]:
    """The names of the corpus's files, and of its named texts. Raises `UserError` if a file is gone."""
    return [
        name
        for place in parent.config().corpus
        for name in ([place] if corpora.is_named(place) else sorted(file.name for file in corpora.files([place])))
    ]


def _is(file: Path, wanted: str) -> bool:
    if file.name == wanted:
        return True
    try:
        return paths.expand(wanted).resolve() == file.resolve()
    except (OSError, RuntimeError, ValueError):
        return False


def create(
    parent: Run,
    step: int,
    name: str,
    given: Mapping[str, Any],
    *,
    texts: Sequence[str] = (),
    exclude: Sequence[str] = (),
    device: str | None = None,
    pinned: Sequence[Pin] = (),
    tensorboard: bool = False,
) -> Run:
    """Makes the branch `name` of `parent` after `step` steps; its worker recomputes that state when it starts.

    `texts` replace the parent's corpus, `exclude` leaves files of it out. Raises `UserError` as `settings`, `corpus` and
    `launch.create` do.
    """
    check_name(name)
    config = parent.config()
    made = settings(parent, step, given)
    if texts and exclude:
        raise UserError("give another text, or leave files out of the parent's, not both")
    return launch.create(
        name,
        list(texts) or corpus(parent, exclude),
        made,
        preset=config.preset,
        device=device or config.device,
        model=parent.path / start.FOLDER if made.from_model else None,
        pinned=list(dict.fromkeys([*pins.of_run(parent), *pinned])) if parent.pins_path.exists() or pinned else (),
        tensorboard=tensorboard,
        branch=BranchOrigin(parent, step, own_rate="learning_rate" in given),
    )
