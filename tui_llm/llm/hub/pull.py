"""Pull a model from the Hugging Face Hub, or a mirror of it, into the user's models folder. No torch here.

huggingface_hub (extra `[hub]`) handles URLs, tokens, settings (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, proxies) and
transfers. This module adds what it lacks: resuming interrupted downloads, and verifying every file's hash.

Only safetensors weights, the config, the tokenizer and the model card are downloaded. Each is verified against the
Hub's hash, in a temporary folder, which is renamed to the model's name when it is complete.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import Timeout

from tui_llm.common import paths, storage
from tui_llm.common.errors import UserError, message_line
from tui_llm.common.files import check_space, delete_folder, remedy, write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.model.model_config import is_gpt2, read_config
from tui_llm.llm.model.tensor_shapes import read_shapes

SHORT = {  # short names of the GPT-2 family
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
ORIGIN = "pulled.json"  # in a pulled model's folder: its source
_PART = "[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-])){0,95}"
_NAME = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_/-]|\.(?!\.)){0,199}")
_COMMIT = re.compile("[0-9a-f]{40}")
_WEIGHTS = re.compile(r"model\.safetensors|model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json")
_OTHERS = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt",
    "chat_template.jinja", "README.md", "LICENSE", "LICENSE.txt",
}  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
UNKNOWN = -1  # size of a file of which the hub gives none
_CHUNK = 1 << 20  # bytes between progress updates


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The current activity, and its progress in bytes over all files."""

    doing: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Pulled:
    """`name` opens the model; `size` is in bytes; `fresh` is False if this commit had been pulled before."""

    name: str
    folder: Path
    repository: str
    commit: str
    size: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class _HubFile:
    name: str
    size: int
    sha256: str | None
    git: str | None  # git's blob SHA-1, for files that are not in LFS


Report = Callable[[PullProgress], None]


def repository(name: str) -> str:
    """OWNER/NAME of a model on the Hub, from the name that the user gave. Raises `UserError` if it is not a valid
    name."""
    if name in SHORT:
        return SHORT[name]
    if len(name) > 200 or not _NAME.fullmatch(name) or name.endswith((".git", ".ipynb")):
        raise UserError(
            f"{name[:200]!r} is not a model's name on the hub; give {', '.join(SHORT)} or OWNER/NAME, letters, digits and -._ only"
        )
    return name


def local_name(repo: str) -> str:
    """The local name of a pulled repository: a short name such as `gpt2`, or OWNER/NAME."""
    return {full: short for short, full in SHORT.items()}.get(repo, repo)


def pull(name: str, revision: str | None = None, report: Report = lambda _: None) -> Pulled:
    """Pull a model, resuming an interrupted download. `report` is called a few times a second; an exception that it
    raises ends the download, and the partial files stay for the next call.

    Raises `UserError`, with what to do, on failure.
    """
    repo = repository(name)
    if revision is not None and not _REVISION.fullmatch(revision):
        raise UserError(f"{revision[:200]!r} is not a revision; give a branch, a tag or a commit")
    _recover(repo)
    try:
        import huggingface_hub as library
        from huggingface_hub import constants
    except ImportError as error:
        raise UserError(
            "pulling a model needs the huggingface_hub library: pip install 'tui-llm[hub]'; or copy a model folder here and "
            "name it with --model"
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"HF_HUB_OFFLINE is set, so {repo} can't be pulled; unset it, or copy the model's folder here and name it with --model"
        )
    report(PullProgress(f"connecting to {constants.ENDPOINT}", 0, 0))
    try:
        info = library.HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=20)
    except Exception as error:  # of huggingface_hub, the HTTP client (which depends on the version) or the OS
        raise UserError(_message(error, repo, revision)) from error
    commit = str(info.sha or "")
    if not _COMMIT.fullmatch(commit):
        raise UserError(f"{constants.ENDPOINT} doesn't say which commit of {repo} it gives; pull from another address")
    files = _wanted(repo, info.siblings or ())
    return _pull(repo, commit, revision, files, report)


def _wanted(repo: str, siblings: Any) -> list[_HubFile]:
    """The files to download, small ones first. Raises `UserError` if they don't make a model that can be opened."""
    files = {}
    for one in siblings:
        lfs = one.lfs or {}
        sha256 = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
        size = one.size if isinstance(one.size, int) and one.size >= 0 else UNKNOWN
        files[str(one.rfilename)] = _HubFile(str(one.rfilename), size, sha256, getattr(one, "blob_id", None))
    weights = [name for name in files if _WEIGHTS.fullmatch(name)]
    if "model.safetensors" in weights:
        weights = ["model.safetensors"]
    if not [name for name in weights if name.endswith(".safetensors")]:
        pickles = sorted(name for name in files if name.endswith(_PICKLES) and "/" not in name)
        if pickles:
            raise UserError(
                f"{repo} has its weights only as {pickles[0]}, which can run code and is never opened; look for a revision with safetensors"
            )
        raise UserError(f"{repo} has no weights in safetensors; it is not a model that can be opened")
    if "config.json" not in files:
        raise UserError(f"{repo} has no config.json; it is not a model that can be opened")
    wanted = [files[name] for name in (*weights, *(set(files) & _OTHERS))]
    for file in wanted:
        if lacks := "size" if file.size == UNKNOWN else "hash" if not (file.sha256 or file.git) else "":
            raise UserError(
                f"the hub gives no {lacks} of {file.name} of {repo}, so it can't be checked; pull from another address"
            )
    return sorted(wanted, key=lambda file: (file.size, file.name))


def _pull(repo: str, commit: str, revision: str | None, files: list[_HubFile], report: Report) -> Pulled:
    name = local_name(repo)
    folder = paths.pulled_model(name)
    total = sum(file.size for file in files)
    waiting = paths.models_dir() / ".pulling"
    if folder.exists():
        before = origin(folder)
        if before is None:
            raise UserError(f"{folder} already exists and was not pulled; rename it, then pull again")
        if before.get("commit") == commit:
            return Pulled(name, folder, repo, commit, total, False)
    part = waiting / f"{folder.name}@{commit[:12]}"
    try:
        storage.make_folders(part)
        with storage.Lock(waiting / f"{folder.name}.lock", timeout=0):
            _space(repo, part, files)
            bring = _Downloader(repo, commit, part, total, report)
            for file in files:
                bring(file)
            _check_headers(repo, part)
            source = {
                "repository": repo, "revision": revision or "main", "commit": commit, "from": _endpoint(),
                "files": {file.name: file.sha256 or f"git:{file.git}" for file in files},
            }  # fmt: skip
            write_json(part / ORIGIN, source)
            _put(part, folder, waiting)
    except Timeout as error:
        raise UserError(f"{repo} is being pulled already, by another process; wait for that one") from error
    except OSError as error:
        raise UserError(_message(error, repo, revision)) from error
    return Pulled(name, folder, repo, commit, total, True)


def _space(repo: str, part: Path, files: list[_HubFile]) -> None:
    have = sum(path.stat().st_size for path in part.iterdir() if path.is_file())
    check_space(repo, sum(file.size for file in files) - have, paths.models_dir())


class _Downloader:
    """Downloads files into `part`, one at a time, and reports the total progress."""

    def __init__(self, repo: str, commit: str, part: Path, total: int, report: Report) -> None:
        self.repo, self.commit, self.part, self.total, self.report = repo, commit, part, total, report
        self.before = 0  # bytes of completed files

    def __call__(self, file: _HubFile) -> None:
        path = self.part / file.name
        if not (path.is_file() and path.stat().st_size == file.size):  # only verified files have their final name
            self._fetch(file, path)
        self.before += file.size
        self.report(PullProgress(file.name, self.before, self.total))

    def _fetch(self, file: _HubFile, path: Path) -> None:
        import huggingface_hub
        from huggingface_hub import constants, file_download
        from huggingface_hub import utils as untyped

        utils: Any = untyped  # exports dynamically, which mypy can't follow
        constants.DOWNLOAD_CHUNK_SIZE = _CHUNK  # the default of 10 MB takes half a minute on a slow line
        utils.disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings would garble the progress line
        brought = path.with_name(file.name + ".part")
        try:
            url = huggingface_hub.hf_hub_url(self.repo, file.name, revision=self.commit)
            with storage.open_file(brought, "r+b" if brought.exists() else "w+b") as raw:
                have = raw.seek(0, os.SEEK_END)
                if have > file.size:  # belongs to another file: start over
                    have = raw.seek(0)
                    raw.truncate()
                self.report(PullProgress(file.name, self.before + have, self.total))
                counted: Any = _Counted(
                    raw, file.size, lambda at: self.report(PullProgress(file.name, self.before + at, self.total))
                )
                if have < file.size or not file.size:
                    file_download.http_get(
                        url, counted, resume_size=have, headers=utils.build_hf_headers(), expected_size=file.size
                    )
        except _TooLong:
            raise self._refused(f"{file.name} of {self.repo} exceeds its listed {file.size:,} bytes") from None
        except UserError:
            raise
        except Exception as error:
            raise UserError(_message(error, self.repo, self.commit)) from error
        self.report(PullProgress(f"checking {file.name}", self.before + file.size, self.total))
        if not _matches(brought, file):
            raise self._refused(f"{file.name} of {self.repo} is not the file whose hash the hub gives")
        storage.sync_path(brought)
        storage.replace(brought, path)

    def _refused(self, why: str) -> UserError:
        storage.rmtree(self.part)
        return UserError(f"{why}; it was deleted: pull again, or from another address (HF_ENDPOINT)")


class _TooLong(Exception):
    """The server sends more bytes of a file than the hub's list gives."""


class _Counted:
    """A file wrapper that reports its length after each write. Raises `_TooLong` instead of a write beyond `most` bytes."""

    def __init__(self, file: BinaryIO, most: int, report: Callable[[int], None]) -> None:
        self._file, self._most, self._report = file, most, report

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > self._most:
            raise _TooLong
        count = self._file.write(data)
        self._report(self._file.tell())
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _matches(path: Path, file: _HubFile) -> bool:
    """Whether the file has the Hub's hash: SHA-256 for files in LFS, else git's blob SHA-1."""
    with path.open("rb") as data:
        if file.sha256:
            return hashlib.file_digest(data, "sha256").hexdigest() == file.sha256.lower()
        made = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
        while block := data.read(_CHUNK):
            made.update(block)
        return made.hexdigest() == file.git


def _check_headers(repo: str, part: Path) -> None:
    """Check that the config and the safetensors headers are valid. Whether the architecture is supported is checked
    when the model is opened."""
    try:
        for weights in part.glob("*.safetensors"):
            read_shapes(weights)
        if read_json(part / "config.json").get("model_type") == "gpt2" and is_gpt2(part):  # not transformers' variants
            read_config(part)
    except (UserError, AttributeError) as error:
        storage.rmtree(part)
        raise UserError(f"{repo} can't be opened: {error}".replace(str(part), repo)) from error


def _put_back(folder: Path, waiting: Path) -> None:
    """Put back the older revision if a pull ended after it was moved away and before the newer one was in its place. Raises
    OSError."""
    old = waiting / f"{folder.name}.old"
    if old.is_dir() and not folder.exists():
        storage.replace(old, folder)


def _recover(repo: str) -> None:
    """Put the older revision back after a pull that was killed, or delete it if the newer one is in its place: also before
    a pull that can't reach the hub, or has nothing to bring."""
    folder, waiting = paths.pulled_model(local_name(repo)), paths.models_dir() / ".pulling"
    if (old := waiting / f"{folder.name}.old").is_dir():
        with suppress(OSError), storage.Lock(waiting / f"{folder.name}.lock", timeout=0):
            _put_back(folder, waiting)
            if origin(folder) is not None:
                storage.rmtree(old, ignore_errors=True)


def _put(part: Path, folder: Path, waiting: Path) -> None:
    """Rename the complete folder to its final name; remove an older revision and other partial downloads of this
    model."""
    old = waiting / f"{folder.name}.old"
    if folder.exists():  # if not, `old` is the only revision until the new one is in its place
        storage.rmtree(old, ignore_errors=True)
        storage.replace(folder, old)
    try:
        storage.replace(part, folder)
    except BaseException:
        _put_back(folder, waiting)
        raise
    storage.sync_folder(folder.parent)
    storage.rmtree(old, ignore_errors=True)
    for partial in waiting.glob(f"{folder.name}@*"):
        storage.rmtree(partial, ignore_errors=True)


def origin(folder: Path) -> dict[str, Any] | None:
    """The source of a pulled model; None if it was not pulled."""
    try:
        made = read_json(folder / ORIGIN)
    except UserError:
        return None
    return made if isinstance(made, dict) and isinstance(made.get("repository"), str) else None


def delete(name: str) -> Path:
    """Delete a pulled model. Raises `UserError` if there is none of that name; never deletes anything else."""
    folder = paths.pulled_model(local_name(repository(name)))
    if origin(folder) is None:
        raise UserError(f"there is no pulled model {name}; `tui-llm models` lists what there is")
    try:
        delete_folder(folder)
    except OSError as error:
        advice = "delete the link yourself" if folder.is_symlink() else remedy(error)
        raise UserError(f"can't delete {folder}: {error.strerror or error}; {advice}") from error
    return folder


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _message(error: BaseException, repo: str, revision: str | None) -> str:
    """A one-line message, with what to do, for an exception of huggingface_hub."""
    from huggingface_hub import errors

    if isinstance(error, UserError):
        return str(error)
    where = _endpoint()
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated: accept its terms at {where}/{repo}, then set HF_TOKEN to your token (or run `hf auth login`)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision or 'main'!r}; omit --revision for the newest"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no model {repo} at {where}, or it is private: check the spelling, or set HF_TOKEN to a token that may see it"
    if isinstance(error, errors.HfHubHTTPError):
        with suppress(AttributeError):
            status = error.response.status_code
            if status in (401, 403):
                return f"{where} refuses {repo} ({status}); set HF_TOKEN to a token that may see it"
            return f"{where} answers {status} for {repo}; try again later: what was downloaded is kept"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {repo} is not whole; free some space in {paths.models_dir()}, then pull again: it resumes where it stopped"
    if isinstance(error, OSError) and error.filename:
        return f"can't write {error.filename}: {error.strerror or error}; make it writable or set TUI_LLM_HOME to another folder"
    reason = message_line(error)
    return (
        f"can't pull {repo} from {where} ({reason}); check the network, or set HF_ENDPOINT to a mirror's address, then pull again: "
        "it resumes where it was cut off"
    )
