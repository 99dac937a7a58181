"""llama.cpp through the low-level functions of llama-cpp-python: one model with one text in its KV cache. No torch here.

llama.cpp's log is dropped, so that nothing of it reaches the screen. Letters: T tokens, V the vocabulary.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tui_llm.common import memory
from tui_llm.common.errors import UserError

EXTRA = "pip install 'tui-llm[llama-cpp]'"
_ROOM = 1024  # initial capacity of the KV cache, in tokens
_WORTH_THREADS = 100_000_000  # multiply-adds from which a second thread pays, as in `device.threads`
_LOG = 10  # llama.cpp's messages that are kept

Array = npt.NDArray[np.float32]

_messages: list[str] = []


def available() -> bool:
    """Whether the extra is installed; it is not imported."""
    return importlib.util.find_spec("llama_cpp") is not None


@lru_cache(1)
def library() -> Any:
    """The module `llama_cpp`, silent. Raises `UserError` if it can't be imported."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:  # its shared library may lack one of its own
        raise UserError(f"this needs llama-cpp-python, which can't be imported here: {EXTRA}") from error
    llama_cpp.llama_log_set(_callback(llama_cpp), ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


@lru_cache(1)
def _callback(llama_cpp: Any) -> Any:
    """Keeps the last messages for an error's line; the cache keeps the callback alive, which C calls."""

    def log(level: int, text: bytes | None, _: Any) -> None:
        if text and level in (3, 4):  # warnings and errors (GGML_LOG_LEVEL_WARN, _ERROR)
            _messages.append(text.decode("utf-8", "replace").strip())
            del _messages[:-_LOG]

    return llama_cpp.llama_log_callback(log)


def instructions() -> list[str]:
    """The CPU instruction sets that this build of llama.cpp uses here, such as AVX2 and AVX512."""
    info = library().llama_print_system_info().decode("utf-8", "replace")
    pairs = (part.rpartition(":")[2].partition("=") for part in info.split("|"))
    return [name.strip() for name, _, value in pairs if value.strip() == "1"]


def cores() -> int:
    """The number of threads for large products: OMP_NUM_THREADS, else torch's if it is imported, else the CPUs that this
    process may use."""
    if (asked := os.environ.get("OMP_NUM_THREADS", "")).isdecimal() and int(asked) > 0:
        return int(asked)
    if "torch" in sys.modules:
        from tui_llm.llm.model import device

        return device.most_threads()
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class LlamaCppModel:
    """A GGUF file that llama.cpp has opened, and the tokens in its KV cache (float16).

    vocabulary: V, the rows of the output head. overrides: values in place of those in the file's header. batch: the most
    tokens that run at once. Raises `UserError` if llama.cpp can't open the file. Give it only files that `gguf_header` has checked.
    """

    def __init__(
        self,
        path: Path,
        vocabulary: int,
        context: int,
        parameters: int,
        overrides: Mapping[str, str | int] | None = None,
        threads: int | None = None,
        batch: int = 512,
    ) -> None:
        self._library, self._batch = library(), batch
        self.vocabulary, self.context, self.parameters, self.threads = vocabulary, context, parameters, threads
        self.length = 0  # tokens in the KV cache
        _messages.clear()
        settings = self._library.llama_model_default_params()
        settings.n_gpu_layers = 0
        if overrides:
            settings.kv_overrides = _overrides(self._library, overrides)
        self._model = self._library.llama_model_load_from_file(os.fsencode(path), settings)
        if not self._model:
            raise UserError(f"llama.cpp can't open {path}: {(_messages or ['it gives no reason'])[-1]}")
        self._release = weakref.finalize(self, self._library.llama_model_free, self._model)
        self._context: Any = None
        self._free: Any = None
        self._make_context(min(context, _ROOM))

    def _make_context(self, room: int) -> None:
        """A KV cache for `room` tokens. The tokens of the one before, if any, are copied. Raises `UserError`."""
        at = self._library
        memory.check(self._growth(room), memory.free_bytes(), f"a context of {room:,} tokens")
        settings = at.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = room, min(self._batch, room), min(self._batch, room)
        settings.n_threads = settings.n_threads_batch = 1
        made = at.llama_init_from_model(self._model, settings)
        if not made:
            raise UserError(
                f"llama.cpp can't make a context of {room:,} tokens: {(_messages or ['it gives no reason'])[-1]}"
            )
        free = weakref.finalize(self, at.llama_free, made)  # before the model: the last made is called first
        if self.length:
            size = at.llama_state_seq_get_size(self._context, 0)
            data = (ctypes.c_uint8 * size)()
            at.llama_state_seq_get_data(self._context, data, size, 0)
            if not at.llama_state_seq_set_data(made, data, size, 0):
                free()
                raise UserError("llama.cpp can't copy its KV cache to a larger one")
        if self._free is not None:
            self._free()
        self._context, self._free, self._room = made, free, room

    def _growth(self, room: int) -> int:
        """Bytes of a KV cache of `room` tokens, and of the logits that `Window` keeps."""
        at = self._library
        heads, wide = max(1, at.llama_model_n_head(self._model)), at.llama_model_n_embd(self._model)
        per_token = 4 * at.llama_model_n_layer(self._model) * at.llama_model_n_head_kv(self._model) * wide // heads
        return room * (per_token + 4 * self.vocabulary)

    def run(self, ids: Sequence[int], every: bool = True) -> Array:
        """Logits (T, V) of `ids`, which follow those in the cache; with `every` false (1, V), after the last. Raises
        ValueError if they don't fit into the context, and `UserError` if llama.cpp fails."""
        if (end := self.length + len(ids)) > self.context:
            raise ValueError(f"{end} tokens in a context of {self.context}")
        if end > self._room:
            self._make_context(min(self.context, max(end, 2 * self._room)))
        step = self._batch
        rows = [
            self._decode(ids[start : start + step], every, start + step >= len(ids))
            for start in range(0, len(ids), step)
        ]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _decode(self, ids: Sequence[int], every: bool, last: bool) -> Array:
        at, count = self._library, len(ids)
        threads = self.threads or (cores() if self.parameters * count >= _WORTH_THREADS else 1)
        at.llama_set_n_threads(self._context, threads, threads)
        tokens = (ctypes.c_int32 * count)(*ids)
        wanted = (ctypes.c_int8 * count)(*([1 if every else 0] * count))
        wanted[count - 1] = 1  # llama.cpp needs one output in each batch
        # Without positions and sequence ids the tokens follow those in the cache.
        batch = at.llama_batch(n_tokens=count, token=tokens, logits=wanted)
        if code := at.llama_decode(self._context, batch):
            self.crop(self.length)  # what it had added
            raise UserError(f"llama.cpp can't run {count} tokens (code {code}): {(_messages or ['no reason'])[-1]}")
        self.length += count
        made = count if every else int(last)
        if not made:
            return np.zeros((0, self.vocabulary), np.float32)
        pointer = at.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (made, self.vocabulary)).copy()

    def crop(self, length: int) -> bool:
        """Discard all but the first `length` tokens. False if this cache can't keep a part: it is empty then."""
        cache = self._library.llama_get_memory(self._context)
        kept = length <= 0 or bool(self._library.llama_memory_seq_rm(cache, 0, length, -1))
        if length <= 0 or not kept:
            self._library.llama_memory_clear(cache, False)
        self.length = max(0, min(self.length, length)) if kept else 0
        return kept


def _overrides(llama_cpp: Any, values: Mapping[str, str | int]) -> Any:
    """The C array of `values`, which an entry with an empty key ends."""
    made = (llama_cpp.llama_model_kv_override * (len(values) + 1))()
    for entry, (key, value) in zip(made, values.items(), strict=False):
        entry.key = key.encode()
        if isinstance(value, str):
            entry.tag, entry.value.val_str = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR, value.encode()
        else:
            entry.tag, entry.value.val_i64 = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, value
    return made
