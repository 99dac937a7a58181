"""The model under check. Each part is opened once, by the function that the app opens it with, on first use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import read_json
from tui_llm.facts.check import CheckStatus, Finding
from tui_llm.llm.adapters import checks, foreign
from tui_llm.llm.adapters.gguf_header import read_gguf
from tui_llm.llm.hub.hub import load_vocabulary
from tui_llm.llm.hub.open_model import LoadedModel, open_model
from tui_llm.llm.model.model_config import GGUF
from tui_llm.llm.model.tensor_shapes import TensorInfo, read_header
from tui_llm.llm.tokens.tokenizer import Tokenizer

_CPU = torch.device("cpu")
Part = TypeVar("Part")


class CheckedModel:
    """A part that can't be opened raises its `UserError` on each use."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._parts: dict[str, Any] = {}
        self._said: dict[str, str] = {}  # an error's line → the check that names it

    def _part(self, key: str, make: Callable[[], Part]) -> Part:
        """The result of `make`, or the error that it raised, from its first call on."""
        if key not in self._parts:
            try:
                self._parts[key] = make()
            except UserError as error:
                self._parts[key] = error
            except Exception as error:  # damaged files raise all kinds of exceptions
                self._parts[key] = UserError(f"{self.path}: {type(error).__name__}: {message_line(error)}")
        made: Part | UserError = self._parts[key]
        if isinstance(made, UserError):
            raise made
        return made

    # ── the model ──

    @property
    def loaded(self) -> LoadedModel:
        return self._part("loaded", lambda: open_model(self.path, self.name, _CPU, quantized=False))

    @property
    def refusal(self) -> UserError | None:
        """Why the model doesn't open; None if it does."""
        try:
            self.loaded  # noqa: B018
        except UserError as error:
            return error
        return None

    @property
    def vocabulary(self) -> Tokenizer:
        """The vocabulary of the open model; if the model doesn't open, the vocabulary on its own."""
        if self.refusal is None:
            return self.loaded.tokenizer
        if not self.path.is_dir():
            raise self.refusal
        return self._part("vocabulary", lambda: load_vocabulary(self.path, self.name))

    @property
    def whole_vocabulary(self) -> Tokenizer:
        """The vocabulary with the ids that the model has no rows for; the open model's if it can't be read alone."""

        def whole() -> Tokenizer:
            try:
                return load_vocabulary(self.path, self.name)
            except UserError:
                return self.vocabulary

        return self._part("whole vocabulary", whole)

    # ── its files ──

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == GGUF and self.path.is_file()

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.settings("config.json")

    def settings(self, name: str) -> dict[str, Any]:
        """A JSON object in the folder; empty if there is none, or it can't be read: what opens the model says that."""
        if self.path.is_file():
            return {}
        try:
            raw = read_json(self.path / name)
        except UserError:
            return {}
        return raw if isinstance(raw, dict) else {}

    @cached_property
    def gguf(self) -> dict[str, Any]:
        """The settings in a GGUF file; empty if it is none, or can't be read."""
        try:
            return dict(read_gguf(self.path).settings) if self.is_gguf else {}
        except (UserError, ImportError):
            return {}

    @property
    def headers(self) -> dict[Path, dict[str, TensorInfo]]:
        """Weight file → tensor name → its entry; empty if the weights are not in safetensors."""

        def read() -> dict[Path, dict[str, TensorInfo]]:
            if not self.path.is_dir():
                return {}
            return {file: read_header(file) for file in checks.stored_files(self.path)}

        return self._part("headers", read)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        return {name: tensor for header in self.headers.values() for name, tensor in header.items()}

    # ── transformers ──

    @property
    def by_transformers(self) -> bool:
        """Whether the open model is a class of transformers, not of tui-llm."""
        return self.loaded.gpt is None and hasattr(self.loaded.predictor.model, "save_pretrained")  # type: ignore[attr-defined]

    @property
    def reference(self) -> Any:
        """transformers' model. For a model that runs through transformers it is the open one."""
        if self.loaded.gpt is None:
            return self.loaded.predictor.model  # type: ignore[attr-defined]
        return self._part("reference", lambda: foreign.reference_model(self.path, self.name, _CPU))

    @property
    def reference_tokenizer(self) -> Any:
        return self._part("reference tokenizer", lambda: foreign.reference_tokenizer(self.path, self.name))

    @property
    def file_tokenizer(self) -> Any:
        """tokenizer.json in transformers' generic class."""
        return self._part("file tokenizer", lambda: foreign.reference_tokenizer(self.path, self.name, generic=True))

    # ── findings ──

    def fault(self, check: str, error: UserError) -> Finding:
        """What a check finds if a part that it needs can't be opened: that, unless another check has said it."""
        first = self._said.setdefault(str(error), check)
        if first != check:
            return unchecked(check, f"see `{first}`")
        return Finding(check, CheckStatus.BROKEN, str(error))


def unchecked(check: str, why: str) -> Finding:
    return Finding(check, CheckStatus.UNCHECKED, why)


def listed(names: list[str], most: int = 4) -> str:
    """The first of `names`, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
