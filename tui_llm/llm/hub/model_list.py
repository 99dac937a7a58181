"""The models that can be opened, described without loading their weights. No torch here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import open_foreign
from tui_llm.facts.model import ModelInfo
from tui_llm.llm.adapters import description
from tui_llm.llm.formats import detect
from tui_llm.llm.hub import lookup, pull
from tui_llm.llm.hub.lookup import LocalModel
from tui_llm.llm.model.model_config import is_gpt2, is_gpt2_type, read_config, untied_note
from tui_llm.llm.model.tensor_shapes import headers_once
from tui_llm.llm.tokens.folder_files import read_files

CARD = "README.md"
_LONGEST_CARD = 200_000  # bytes


@headers_once()
def describe(found: LocalModel) -> ModelInfo:
    """A model's parameters, context and vocabulary, from its config and file headers. If they can't be read, `problem`
    is the reason."""
    info = ModelInfo(
        name=found.name,
        kind=found.kind,
        path=str(found.folder),
        parameters=None,
        context=None,
        vocabulary=None,
        step=found.step,
        problem=None,
        size=_size(found.folder),
        origin=_origin(found),
        pulled=found.kind == "model" and pull.origin(found.folder) is not None,
    )
    try:
        parameters, context, vocabulary = _sizes(found.folder)
        note = untied_note(found.folder) if is_gpt2(found.folder) and found.folder.is_dir() else ""
    except UserError as error:
        return dataclasses.replace(info, problem=str(error))
    except Exception as error:  # whatever a folder contains: the others are listed
        return dataclasses.replace(info, problem=f"it can't be read ({message_line(error)}); it may be damaged")
    return dataclasses.replace(info, parameters=parameters, context=context, vocabulary=vocabulary, note=note)


def with_ids(info: ModelInfo) -> ModelInfo:
    """`info` with the number of ids of the folder's tokenizer, which every softmax is over, in place of the number of
    the model's rows. Reads the whole vocabulary, which may take a second."""
    path = Path(info.path)
    if info.problem or info.vocabulary is None or not path.is_dir():
        return info
    gpt2 = is_gpt2(path)
    try:
        ids = read_files(path, gpt2=is_gpt2_type(path)).size(info.vocabulary)
    except UserError as error:  # transformers knows more vocabularies than these
        return dataclasses.replace(info, problem=str(error)) if gpt2 else info
    return dataclasses.replace(info, vocabulary=ids, rows=info.vocabulary if ids < info.vocabulary else None)


def every() -> list[ModelInfo]:
    """Shipped models, runs, the user's own and pulled models; broken ones have a `problem`."""
    return [describe(found) for found in lookup.every()]


def cached() -> list[ModelInfo]:
    """The models with safetensors in the Hugging Face Hub cache, newest revision each; none if huggingface_hub is not
    installed. Scans every file in the cache, which may take a second."""
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return []
    try:
        report = scan_cache_dir(lookup.hub_cache())
    except (CacheNotFound, OSError, ValueError):
        return []
    found = []
    for repository in sorted(report.repos, key=lambda one: one.repo_id):
        if repository.repo_type != "model" or not repository.revisions:
            continue
        newest = max(repository.revisions, key=lambda one: ("main" in one.refs, one.last_modified))
        folder = Path(newest.snapshot_path)
        if (folder / "config.json").is_file() and next(folder.glob("*.safetensors"), None):
            found.append(describe(LocalModel(repository.repo_id, "cache", folder)))
    return found


def card(folder: Path) -> str:
    """The text of the model card, which is untrusted; empty if there is none."""
    try:
        with open_foreign(folder / CARD) as file:
            return file.read(_LONGEST_CARD).decode("utf-8", "replace")
    except UserError:
        return ""


def _sizes(path: Path) -> tuple[int | None, int | None, int | None]:
    """(parameters, context, vocabulary), each None if unknown. Raises `UserError` if the model can't be opened."""
    if detect.is_file(path):
        from tui_llm.llm.formats.described import described

        return described(path)
    if not is_gpt2(path):
        return description.described(path)
    config = read_config(path)
    return config.parameters(), config.context, config.vocabulary


def _size(folder: Path) -> int | None:
    """Bytes of a file, or of the files in a folder; symbolic links (as in the Hub cache) are followed."""
    try:
        if folder.is_file():
            return folder.stat().st_size
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:
        return None


def _origin(found: LocalModel) -> str:
    if found.kind == "shipped":
        return "ships with tui-llm"
    if found.kind == "run":
        return "trained here"
    if found.kind == "cache":
        snapshot = found.folder if found.folder.is_dir() else found.folder.parent
        return f"Hugging Face cache, commit {snapshot.name[:12]}"
    source = pull.origin(found.folder) if found.kind == "model" else None
    if source is None:
        return "a file of yours" if found.folder.is_file() else "a folder of yours"
    return f"{source.get('from', '')}/{source['repository']}, commit {str(source.get('commit', ''))[:12]}"
