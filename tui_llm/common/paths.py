"""The user's folders: runs and models in the data folder, vocabularies and tokenized text in the cache folder.

If `TUI_LLM_HOME` is set, it contains both.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tui_llm.common.errors import UserError

HOME = "TUI_LLM_HOME"


def expand(text: str | Path, source: str = "") -> Path:
    """`text` as a path, with `~` and `~user` expanded. `source` is the environment variable or option that it comes from.

    Raises `UserError` if no file can have that name: unknown user, zero byte, name too long, circular links.
    """
    front = f"{source} is {_short(text)}: " if source else f"{_short(text)} can't be a path: "
    try:
        path = Path(text).expanduser()
        os.lstat(path)
    except RuntimeError as error:  # ~nobody
        raise UserError(f"{front}there is no such user's home folder; write the whole path") from error
    except ValueError as error:  # zero byte, or a surrogate that encodes no byte
        raise UserError(f"{front}it has a character that no file name can have; give another one") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise UserError(f"{front}{error.strerror}; give another one") from error
    return path


def _short(text: str | Path) -> str:
    whole = str(text)
    return whole if len(whole) <= 200 else f"{whole[:200]}…"


def absolute(text: str | Path, source: str = "") -> Path:
    """As `expand`, made absolute. Raises `UserError` also if the current folder was deleted."""
    path = expand(text, source)
    try:
        return path.absolute()
    except OSError as error:
        raise UserError(f"{GONE}, or write the whole path of {path}") from error


GONE = "the current folder was deleted; change to another one (cd)"


def check_current_folder() -> None:
    """Raises `UserError` if the current folder was deleted: relative paths are then invalid, and MKL, which torch
    loads, terminates the program."""
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(GONE) from error


def home() -> Path | None:
    """The folder in `TUI_LLM_HOME`, or None if it is unset or empty. Raises `UserError` if it can't be a folder."""
    value = os.environ.get(HOME, "")
    if not value:
        return None
    path = absolute(value, HOME)
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise UserError(
                f"{HOME} is {value}, which is not a folder; set it to one, or to a path where one can be made"
            )
        return path.resolve()
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 raise RuntimeError for a loop of links
        if isinstance(error, FileNotFoundError):
            return path.resolve()
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{HOME} is {value}: {why}; set it to another folder") from error


def in_own_folders(path: Path) -> bool:
    """Whether `path` is in a folder that tui-llm chose, not one that the user gave."""
    try:
        return any(path.is_relative_to(top) for top in (data_dir(), cache_dir(), log_dir()))
    except UserError:
        return False


def data_dir() -> Path:
    """Data that must not be lost: runs, models."""
    if (top := home()) is not None:
        return top
    import platformdirs

    return Path(platformdirs.user_data_dir("tui-llm", appauthor=False))


def cache_dir() -> Path:
    """Data that can be recreated: downloaded vocabularies, tokenized corpora."""
    if (top := home()) is not None:
        return top / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("tui-llm", appauthor=False))


def log_dir() -> Path:
    if (top := home()) is not None:
        return top / "log"
    import platformdirs

    return Path(platformdirs.user_log_dir("tui-llm", appauthor=False))


def runs_dir() -> Path:
    return data_dir() / "runs"


def pins_path() -> Path:
    """The prompts that the user pinned."""
    return data_dir() / "pins.json"


def state_path() -> Path:
    """What comes back at the app's next start."""
    return data_dir() / "state.json"


def models_dir() -> Path:
    """Models that the user pulled or made."""
    return data_dir() / "models"


def pulled_model(name: str) -> Path:
    """The folder of a model pulled from the Hub: OWNER--NAME for OWNER/NAME, because no name on the Hub contains two
    dashes."""
    return models_dir() / name.replace("/", "--")


def vocabularies_dir() -> Path:
    """Vocabularies that the user added."""
    return data_dir() / "vocabularies"


def shipped_models_dir() -> Path:
    """The models that ship with this package: inside it in a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


RUN = "run:"


def run_model(name: str) -> str:
    """The model name that opens the newest checkpoint of run `name`, even if a shipped model has the same name."""
    return RUN + name
