"""Find models by name: shipped models, the user's runs and models, folders.

A plain name is looked up as a shipped model, then a run, then one of the user's models, then a folder in the current
directory. With a path separator it is a folder or a file. `run:NAME` is always a run. No torch and no tokenizer
here, because the screen imports it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_foreign_text
from tui_llm.common.suggestions import no_such
from tui_llm.llm.formats import detect
from tui_llm.llm.model import intact
from tui_llm.llm.model.model_config import GGUF
from tui_llm.llm.model.weight_names import WEIGHTS
from tui_llm.llm.tokens.added import added_folder

_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model's folder or file (GGUF, or a checkpoint of `formats`).

    kind: shipped, run, model (pulled, or put there by the user), cache (the Hugging Face Hub cache) or folder.
    step: a run's training step; note: newer checkpoints that were skipped, and why.
    """

    name: str
    kind: str
    folder: Path
    step: int | None = None
    note: str = ""


def _checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of a run directory's complete checkpoints, oldest first."""
    return sorted(
        (int(match[1]), child)
        for child in (run.iterdir() if run.is_dir() else ())
        if (match := _CHECKPOINT.fullmatch(child.name)) and (child / intact.RECORD).is_file()
    )


def newest_checkpoint(run: Path) -> tuple[int, Path] | None:
    """(step, folder) of a run directory's newest complete checkpoint; its files are not verified (`find` does)."""
    return max(_checkpoints(run), default=None)


def find(name: str) -> LocalModel:
    """The model called `name`. For a run, its newest checkpoint that passes verification.

    Raises `UserError`, listing the known names, if there is none.
    """
    if not name or "\0" in name or len(name) > 1000:
        raise UserError("that is not a model's name; `tui-llm models` lists what can be opened")
    looks_like_path = os.sep in name or (os.altsep and os.altsep in name) or name.startswith((".", "~"))
    try:
        found = (None if looks_like_path else _named(name)) or _folder(paths.expand(name))
    except (OSError, RuntimeError):  # name too long, no home directory
        found = None
    found = found or _from_hub(name)
    if found is not None:
        return found
    raise UserError(_unknown(name, looks_like_path=bool(looks_like_path)))


def name_of_run(run: str) -> str:
    """What `find` resolves to the run: its name, with `run:` in front where a shipped model has the same."""
    return paths.RUN + run if (paths.shipped_models_dir() / run / "config.json").is_file() else run


def _unknown(name: str, *, looks_like_path: bool) -> str:
    """The line for a model that is not here, with the command that downloads it if there is one."""
    from tui_llm.llm.hub.pull import SHORT

    if name in SHORT:
        return f"the model {name} is not here yet; `tui-llm models pull {name}` downloads it"
    if looks_like_path:
        hub = (
            f"`tui-llm models pull {name}` downloads one of that name from the hub, " if _ON_HUB.fullmatch(name) else ""
        )
        return f"there is no model folder {name}; {hub}`tui-llm models` lists what can be opened"
    return no_such("model", name, (found.name for found in every()), ", or give a model folder")


def _named(name: str) -> LocalModel | None:
    """A shipped model, a run or one of the user's models."""
    if name.startswith(paths.RUN):
        run = paths.runs_dir() / name.removeprefix(paths.RUN)
        return _run(run.name, run) if (run / "config.json").is_file() else None
    shipped, run, own = (top / name for top in (paths.shipped_models_dir(), paths.runs_dir(), paths.models_dir()))
    if (shipped / "config.json").is_file():
        return LocalModel(name, "shipped", shipped)
    if (run / "config.json").is_file():
        return _run(name, run)
    if detect.opens_by_name(own):
        return LocalModel(name, "model", own)
    return _own(name, "model", own) if (own / "config.json").is_file() else None


def with_weights(spec: str) -> tuple[str, str | None]:
    """(name, weight format) of a spec such as `nano:int8`; None if it names no format. A model whose own name ends so is
    found before."""
    name, colon, weights = spec.rpartition(":")
    if not (colon and name and weights in WEIGHTS) or name + colon == paths.RUN:
        return spec, None
    try:
        if paths.expand(spec).exists():
            return spec, None
    except (OSError, RuntimeError, ValueError, UserError):
        pass
    return name, weights


def lasting_name(name: str) -> str:
    """A name that `find` resolves to the same model from any current folder: a path becomes absolute."""
    looks_like_path = os.sep in name or (os.altsep and os.altsep in name) or name.startswith((".", "~"))
    try:
        if not looks_like_path and _named(name) is not None:
            return name
        path = paths.absolute(name)
        return str(path) if path.exists() else name
    except (OSError, RuntimeError, ValueError, UserError):
        return name


def _from_hub(name: str) -> LocalModel | None:
    """OWNER/NAME: a pulled model, else the revision `main` in the Hugging Face Hub cache if that has a config.json."""
    if not _ON_HUB.fullmatch(name):
        return None
    pulled = paths.pulled_model(name)
    if (pulled / "config.json").is_file():
        return LocalModel(name, "model", pulled)
    kept = hub_cache() / ("models--" + name.replace("/", "--"))
    try:
        commit = read_foreign_text(kept / "refs" / "main", 1000).strip()
        snapshot = kept / "snapshots" / commit
        if not commit.isalnum():
            return None
        return _own(name, "cache", snapshot) if (snapshot / "config.json").is_file() else None
    except (UserError, OSError, ValueError):
        return None


def hub_cache() -> Path:
    """The Hugging Face Hub cache directory, by huggingface_hub's rules but without importing it."""
    top = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if place := os.environ.get(variable):
            return paths.expand(place, variable)
    return paths.expand(Path(top) / "hub", "the hub's cache (HF_HOME)")


def _snapshot(folder: Path) -> str | None:
    """OWNER/NAME if `folder` is a revision in the Hugging Face Hub cache."""
    kept = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not kept.startswith("models--"):
        return None
    return kept.removeprefix("models--").replace("--", "/", 1)


def _folder(folder: Path) -> LocalModel | None:
    """A model folder, a run directory, one of its checkpoints, or a file that can be opened (or a folder with nothing but
    one)."""
    if detect.opens_by_name(folder):
        # Not the link's own target: in the hub's cache that is named by its hash, without a suffix.
        return LocalModel(folder.stem, "folder", folder.parent.resolve() / folder.name)
    if not folder.is_dir():
        return None
    folder = folder.resolve()
    if files := _gguf_files(folder):
        if len(files) > 1:
            raise UserError(f"{folder} has several models: give one of " + ", ".join(file.name for file in files[:8]))
        return LocalModel(folder.name, "folder", files[0])
    if not (folder / "config.json").is_file() and (file := detect.checkpoint_in(folder)) is not None:
        return LocalModel(folder.name, "folder", file)
    if match := _CHECKPOINT.fullmatch(folder.name):
        return LocalModel(folder.parent.name, "folder", folder, int(match[1]))
    if newest_checkpoint(folder) is not None:
        return _run(folder.name, folder)
    if (name := _snapshot(folder)) is not None:
        return LocalModel(name, "cache", folder)
    return LocalModel(folder.name, "folder", folder)


def _gguf_files(folder: Path) -> list[Path]:
    """The GGUF files of a folder that has no other model."""
    files = sorted(folder.glob(f"*{GGUF}"))
    if not files or not (folder / "config.json").is_file():
        return files
    return [] if any(folder.glob("*.safetensors")) or newest_checkpoint(folder) is not None else files


def _own(name: str, kind: str, folder: Path) -> LocalModel:
    """The model in a folder with config.json: its only GGUF file, if that has the weights."""
    files = _gguf_files(folder)
    return LocalModel(name, kind, files[0] if len(files) == 1 else folder)


def _run(name: str, run: Path) -> LocalModel:
    step, folder, passed = intact.newest_of_run(name, _checkpoints(run), intact.check_model)
    return LocalModel(name, "run", folder, step, "; ".join(passed))


def every() -> list[LocalModel]:
    """The models that can be opened by name: shipped models, then runs with a checkpoint, then the user's models."""
    found = []
    for kind, top in (
        ("shipped", paths.shipped_models_dir()),
        ("run", paths.runs_dir()),
        ("model", paths.models_dir()),
    ):
        for child in sorted(top.iterdir()) if top.is_dir() else ():
            if kind == "model" and detect.opens_by_name(child):
                found.append(LocalModel(child.name, kind, child))
            if not (child / "config.json").is_file():
                continue
            if kind == "run":
                newest = newest_checkpoint(child)
                if newest:
                    found.append(LocalModel(child.name, kind, newest[1], newest[0]))
            elif not child.name.startswith("."):  # being pulled or deleted
                pulled = kind == "model" and (child / "pulled.json").is_file()
                found.append(_own(child.name.replace("--", "/", 1) if pulled else child.name, kind, child))
    return found


def vocabulary_folder(name: str) -> tuple[Path, str | None]:
    """The folder of the vocabulary that a run calls `name`, and the vocabulary's name (None: the folder's). Raises
    `UserError` if there is none."""
    for folder in (paths.shipped_models_dir() / name, added_folder(name) or Path(name), paths.expand(name)):
        if (folder / "vocab.json").is_file():
            return folder.resolve(), None
    return find(name).folder, name


def vocabulary_size(name: str) -> int:
    """Number of tokens in the vocabulary that a run calls `name`, without downloading or building it.

    Raises `UserError` if there is none.
    """
    known = {"byte": 257, "gpt2": 50257}
    if name in known:
        return known[name]
    try:
        return size_of_vocabulary(vocabulary_folder(name)[0])
    except (OSError, ValueError, RuntimeError) as error:  # zero byte in the name, no home directory
        raise UserError(f"there is no vocabulary {name!r} ({error}); give byte, gpt2 or a model's name") from error


def size_of_vocabulary(folder: Path, rows: int | None = None) -> int:
    """Number of ids in the vocabulary in `folder`; of those that a model with `rows` rows knows. Raises `UserError` if
    there is none."""
    from tui_llm.llm.tokens.folder_files import read_files

    return read_files(folder, gpt2=True).size(rows)
