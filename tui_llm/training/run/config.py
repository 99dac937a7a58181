"""config.json of a run: what was configured when it was created."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.training.run.metrics import LARGEST_STEP
from tui_llm.training.run.settings import PRETRAINING, RENAMED, TrainingSettings, from_fields

VERSION = 1  # of config.json's format; a later tui-llm may increase it


class NewerRun(UserError):
    """The run was made by a later tui-llm: it is listed, but not changed."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A run's configuration.

    `corpus` contains absolute paths of files and folders, or names from `corpora.NAMES`; `preset` is the preset's name.
    `tensorboard` says whether event files are written too. `nproc` is the number of worker processes on this machine;
    with `shard`, each holds a shard of the weights instead of a copy (FSDP). `parent` is the run that this one branches from
    after step `parent_step`; empty if it is no branch. `parent_tokens` are the tokens that its parents were trained on up to that
    step (0 in runs of earlier versions, whose parents had the same batch).
    """

    corpus: tuple[str, ...]
    preset: str
    device: str
    settings: TrainingSettings
    tensorboard: bool = False
    nproc: int = 1
    shard: bool = False
    parent: str = ""
    parent_step: int = 0
    parent_tokens: int = 0

    @property
    def step_tokens(self) -> int | None:
        """Tokens of a step; None where the steps differ (a run that learns from answers)."""
        s = self.settings
        return s.batch_size * s.grad_accumulation_steps * s.block_size if s.objective == PRETRAINING else None

    @property
    def begin(self) -> tuple[int, int]:
        """The step after which the run's own steps begin, and the tokens trained on up to there."""
        return (self.parent_step, self.parent_tokens) if self.parent_tokens else (0, 0)

    def tokens_at(self, step: int) -> int | None:
        """The tokens trained on up to `step`, repetitions and the parents' included; None where steps differ."""
        first, tokens = self.begin
        return None if self.step_tokens is None else tokens + (step - first) * self.step_tokens


def parse_config(raw: Any, path: Path) -> RunConfig:
    """Returns the configuration in `raw`, the content of the config.json at `path`.

    Raises `UserError` if it is damaged, `NewerRun` if a later tui-llm has written it.
    """
    _check_version(raw, path.parent.name)
    try:
        return RunConfig(
            _corpus(raw["corpus"]),
            str(raw["preset"]),
            str(raw["device"]),
            from_fields(raw["settings"]),
            raw.get("tensorboard") is True,
            _processes(raw.get("nproc", 1)),  # absent in runs of earlier versions
            raw.get("shard", False) is True,
            _parent(raw.get("parent", "")),
            _count(raw.get("parent_step", 0), LARGEST_STEP),
            _count(raw.get("parent_tokens", 0), 1 << 63),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{path} is not a run's config ({error!r}); delete the run") from error


def _check_version(raw: Any, name: str) -> None:
    version, settings = (raw.get("version", 1), raw.get("settings")) if isinstance(raw, dict) else (1, None)
    known = {field.name for field in fields(TrainingSettings)} | RENAMED.keys()
    unknown = sorted(set(settings) - known) if isinstance(settings, dict) else []
    if unknown or (isinstance(version, int | float) and version > VERSION):
        why = f" (its setting {unknown[0][:40]!r} is unknown here)" if unknown else ""
        raise NewerRun(f"run {name} was made by a newer tui-llm{why}; update tui-llm to use it")


def _corpus(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("corpus is a list of texts")
    return tuple(map(str, value))


def _parent(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("parent is the name of a run")
    return value


def _count(value: Any, limit: int) -> int:
    if (count := int(value)) >= limit:
        raise ValueError("a count is too large")
    return max(0, count)


def _processes(value: Any) -> int:
    if (count := int(value)) > 4096:
        raise ValueError(f"nproc is {count}")
    return max(1, count)
