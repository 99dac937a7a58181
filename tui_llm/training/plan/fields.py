"""Training settings as typed text: parse and validate each field, alone and together with the others.

No torch import.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.llm.data import closed_vocabulary, corpora
from tui_llm.llm.hub.lookup import LocalModel, find, size_of_vocabulary, vocabulary_size
from tui_llm.llm.model.model_config import read_config
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens import closed_files
from tui_llm.training.plan import cost, extras, processes, start
from tui_llm.training.run.settings import (
    LEARNS,
    MOST_WARM_UP,
    OBJECTIVE_DEFAULTS,
    PRETRAINING,
    TrainingSettings,
    from_fields,
    problems,
)

NAMES = tuple(field.name for field in dataclasses.fields(TrainingSettings))
_DEFAULTS = TrainingSettings()


def text_of(settings: TrainingSettings, name: str) -> str:
    """Formats a field for editing: 0.003, not 3e-3."""
    value = getattr(settings, name)
    return f"{value:g}" if isinstance(value, float) else str(value)


def field_problems(texts: Mapping[str, str], base: TrainingSettings) -> dict[str, str]:
    """Returns for each invalid field why it is invalid, given the other fields; an empty dict if all are valid.

    A field that can't be parsed does not make others invalid: they are validated with the value of `base` in its place.
    """
    values: dict[str, Any] = dataclasses.asdict(base)
    wrong: dict[str, str] = {}
    for name, text in texts.items():
        try:
            values[name] = _read(name, text)
        except UserError as error:
            wrong[name] = str(error)
    unchecked = object.__new__(TrainingSettings)  # `TrainingSettings(...)` would raise at the first invalid field
    for name, value in values.items():
        object.__setattr__(unchecked, name, value)
    return {name: why for name, why in problems(unchecked).items() if name in texts} | wrong


def launch_problems(nproc: str, *, shard: bool, events: bool, settings: TrainingSettings | None) -> dict[str, str]:
    """Like `field_problems`, for the other options: the number of processes, FSDP sharding and TensorBoard.

    `settings` is None if they are not valid.
    """
    wrong: dict[str, str] = {}
    try:
        count = int(nproc)
    except ValueError:
        wrong["nproc"] = f"{nproc!r} is not a number of processes; give a whole number, 1 or more"
    else:
        try:
            processes.check(settings or TrainingSettings(), count if settings or count < 1 else 1)
        except UserError as error:
            wrong["nproc"] = str(error)
        if shard and count == 1:
            wrong["shard"] = "sharding splits the model between processes: give 2 or more"
        elif shard and settings and "nproc" not in wrong:
            try:
                processes.check(settings, count, shard=True)
            except UserError as error:
                wrong["shard"] = str(error)
    if events:
        try:
            extras.check_tensorboard()
        except UserError as error:
            wrong["tensorboard"] = str(error)
    return wrong


def _read(name: str, text: str) -> Any:
    """Converts `text` to the field's type by the rules of `from_fields`, without validating the value."""
    kind = type(getattr(_DEFAULTS, name))
    try:
        return int(text) if kind is int else float(text) if kind is float else text
    except ValueError:
        from_fields({name: text})  # raises a `UserError` that names the expected type
        raise


def adapted(base: TrainingSettings, given: Mapping[str, Any]) -> TrainingSettings:
    """Returns `base`, a preset, as it is for the objective and the number of steps in `given`: see `OBJECTIVE_DEFAULTS` and
    `MOST_WARM_UP`. Muon's momentum has no warm-up if `given` has another optimizer."""
    base = dataclasses.replace(base, **OBJECTIVE_DEFAULTS.get(str(given.get("objective", PRETRAINING)), {}))
    if given.get("optimizer", base.optimizer) != base.optimizer:
        base = dataclasses.replace(base, optimizer="adamw", momentum_warmup_steps=0)
    if "steps" not in given:
        return base
    steps = from_fields({"steps": given["steps"]}).steps
    shortened = {name: min(getattr(base, name), max(1, steps // part)) for name, part in MOST_WARM_UP.items()}
    return dataclasses.replace(base, **shortened)


def resolve_settings(
    given: Mapping[str, Any], base: TrainingSettings, corpus: Sequence[str] = ()
) -> tuple[TrainingSettings, GPTConfig, LocalModel | None]:
    """Returns a new run's settings, its model's shape, and the model that it starts from, if `given` or `base` names one.

    A vocabulary of `corpus`'s characters or words has as many tokens as that has of them. Raises `UserError` if a value is
    invalid or contradicts that model.
    """
    base = adapted(base, given)
    _check_objective(given)
    model = str(given.get("from_model", base.from_model))
    if not model:
        settings = _new(from_fields(dict(given), base))
        return settings, cost.shape(settings, _vocabulary_size(settings, corpus)), None
    found, config = starting_model(model)
    # Keep a folder's full path: the config may be read from another working directory.
    name = str(found.folder) if found.kind == "folder" else found.name
    return _new(start.fit({**given, "from_model": name}, base, config)), config, found


def _new(settings: TrainingSettings) -> TrainingSettings:
    """Raises `UserError` where only a run of an earlier version can have these settings."""
    for message in problems(settings).values():
        raise UserError(message)
    return settings


def _check_objective(given: Mapping[str, Any]) -> None:
    objective = given.get("objective", PRETRAINING)
    if objective in LEARNS and objective != PRETRAINING and not given.get("from_model"):
        raise UserError(f"learning {LEARNS[objective]} starts from a trained model; name it: --from nano")


def needs_download(settings: TrainingSettings, corpus: Sequence[str]) -> bool:
    """Whether the size of the vocabulary is known only once a corpus is downloaded."""
    return settings.tokenizer in closed_files.KINDS and not all(map(corpora.is_local, map(corpora.place, corpus)))


def _vocabulary_size(settings: TrainingSettings, corpus: Sequence[str]) -> int:
    if settings.tokenizer not in closed_files.KINDS:
        return vocabulary_size(settings.tokenizer)
    if not corpus:
        raise UserError(f"the vocabulary {settings.tokenizer} is made of the text to train on; name that")
    return len(closed_vocabulary.tokens(list(map(corpora.place, corpus)), settings.tokenizer, settings.text_format))


def starting_model(name: str) -> tuple[LocalModel, GPTConfig]:
    """Returns a model to start from and its shape. Raises `UserError` if it does not exist or can't be used."""
    found = find(name)
    config = read_config(found.folder)
    size_of_vocabulary(found.folder, config.vocabulary)  # checks that they belong together
    return found, config
