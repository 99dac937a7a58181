"""Where things live: runs and pulled models in the user's data folder, vocabularies and tokenised text in the cache.

`TUI_LLM_HOME`, when it is set, holds both.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path | None:
    """The folder that `TUI_LLM_HOME` names, or None where it is unset or empty."""
    value = os.environ.get("TUI_LLM_HOME", "")
    return Path(value).expanduser().resolve() if value else None


def data_dir() -> Path:
    """What must not be lost: runs, models."""
    return home() or Path(platformdirs.user_data_dir("tui-llm", appauthor=False))


def cache_dir() -> Path:
    """What can be made again: vocabularies, tokenised corpora."""
    top = home()
    return top / "cache" if top else Path(platformdirs.user_cache_dir("tui-llm", appauthor=False))


def log_dir() -> Path:
    top = home()
    return top / "log" if top else Path(platformdirs.user_log_dir("tui-llm", appauthor=False))


def runs_dir() -> Path:
    return data_dir() / "runs"


def pins_path() -> Path:
    """The prompts that the user pinned."""
    return data_dir() / "pins.json"


def models_dir() -> Path:
    """Models that the user pulled or made."""
    return data_dir() / "models"


def pulled_model(name: str) -> Path:
    """The folder of a model pulled from the hub: OWNER/NAME is OWNER--NAME there, as no name on the hub has two dashes."""
    return models_dir() / name.replace("/", "--")


def vocabularies_dir() -> Path:
    """Vocabularies that the user added under a name."""
    return data_dir() / "vocabularies"


def shipped_models_dir() -> Path:
    """The models that come with this package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


RUN = "run:"


def run_model(name: str) -> str:
    """What opens run `name`'s newest checkpoint as a model, also where a shipped model has the same name."""
    return RUN + name
