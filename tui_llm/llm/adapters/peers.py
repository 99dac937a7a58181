"""Other programs that run the same GPT-2, for `tui-llm bench --against`: each side in a process of its own.

`python -m tui_llm.llm.adapters.peers` is such a process: it reads a request per line from stdin and answers in JSON. In
processes of their own, the sides share neither OpenMP threads nor settings of the environment, and one that fails does
not end the others. Each side gets the same weights, converted by its own converter. Letters: V the vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tui_llm.common.errors import UserError, message_line
from tui_llm.llm.adapters import llama_cpp_library

EXTRA = "pip install 'tui-llm[peers]'"
OURS = "here"
# Side → the module that it needs, and its name for each of our weight formats.
MODULES = {"ctranslate2": "ctranslate2", "llama.cpp": "llama_cpp", "transformers": "transformers"}
TYPES = {
    OURS: {"fp32": "fp32", "half": "half", "int8": "int8"},
    "ctranslate2": {"fp32": "float32", "int8": "int8"},  # it has no 16-bit type on CPUs (4.8.5)
    "llama.cpp": {"fp32": "f32", "half": "f16", "int8": "q8_0"},
    "transformers": {"fp32": "float32", "half": "bfloat16"},
}
LEAST_VOCABULARY = 257  # the bytes and the end of a text: what GGUF's and Hugging Face's vocabularies need
_QUANTIZATIONS = {"f16": 1, "q8_0": 7}  # LLAMA_FTYPE_MOSTLY_F16, _Q8_0

Array = npt.NDArray[np.float32]


class Side(Protocol):
    """One program with one model. `version` is its own; `instructions` names the CPU's instruction set that it uses."""

    version: str

    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        """Greedy decoding of `count` tokens after `prompt`, with an empty cache."""
        ...

    def logits(self, ids: Sequence[int]) -> Array:
        """Logits (V,) after `ids`, with an empty cache."""
        ...

    def instructions(self) -> str: ...


class OurSide:
    def __init__(self, source: Path, kind: str, threads: int) -> None:
        import torch

        from tui_llm.llm.learn.speed import OwnBackend
        from tui_llm.llm.model import device

        device.use_threads(threads)
        self.version = importlib.metadata.version("tui-llm")
        self._own = OwnBackend(source, torch.device("cpu"), kind)

    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        return self._own.write(prompt, count)

    def logits(self, ids: Sequence[int]) -> Array:
        self._own.forget()
        self._own.window.feed(ids)
        return self._own.window.logits()

    def instructions(self) -> str:
        return _torch_instructions()


class TransformersSide:
    def __init__(self, source: Path, kind: str, threads: int) -> None:
        import torch
        import transformers

        from tui_llm.llm.learn.speed import Transformers

        torch.set_num_threads(threads)
        self.version = transformers.__version__
        self._theirs = Transformers(source, torch.device("cpu"), getattr(torch, kind))

    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        return self._theirs.write(prompt, count)

    def logits(self, ids: Sequence[int]) -> Array:
        import torch

        with torch.inference_mode():
            made = self._theirs.model(torch.tensor([list(ids)]), use_cache=True, logits_to_keep=1).logits[0, -1]
        return np.asarray(made.float().numpy())

    def instructions(self) -> str:
        return _torch_instructions()


class CTranslate2Side:
    """The model in CTranslate2, through its converter; the quantization to `kind` is done when it is loaded."""

    def __init__(self, source: Path, kind: str, threads: int) -> None:
        import ctranslate2

        kinds = ctranslate2.get_supported_compute_types("cpu")
        if kind not in kinds:
            raise UserError(f"ctranslate2 has no {kind} on this CPU, only {', '.join(sorted(kinds))}")
        made = source.parent / "ctranslate2"
        if not made.exists():
            ctranslate2.converters.TransformersConverter(str(source)).convert(str(made))
        self.version = ctranslate2.__version__
        self._library, self._log = ctranslate2, log_of(source, "ctranslate2", kind)
        self._generator = ctranslate2.Generator(
            str(made), device="cpu", compute_type=kind, inter_threads=1, intra_threads=threads
        )
        self._tokens = tokens_of(json.loads((source / "config.json").read_text())["vocab_size"])

    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        made = self._generator.generate_batch(
            [[self._tokens[id] for id in prompt]],
            max_length=count,
            min_length=count,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=self._tokens[-1],
        )
        return list(made[0].sequences_ids[0])

    def logits(self, ids: Sequence[int]) -> Array:
        made = self._generator.forward_batch([list(ids)])  # (1, T, V)
        return np.asarray(made.to(self._library.DataType.float32), np.float32)[0, -1, : len(self._tokens)]

    def instructions(self) -> str:
        """What CTranslate2 logged when it was loaded (CT2_VERBOSE)."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        found = re.findall(r"Selected ISA: (\S+)", text)
        return found[-1] if found else "unknown"


class LlamaCppSide:
    """The model in llama.cpp: our GGUF writer makes f32, llama.cpp's quantize function the others."""

    def __init__(self, source: Path, kind: str, threads: int) -> None:
        library = llama_cpp_library.library()
        config = json.loads((source / "config.json").read_text())
        path, rows = source.parent / f"{kind}.gguf", config["vocab_size"]
        plain = source.parent / "f32.gguf"
        if not plain.exists():
            _write_plain(source, plain, rows)
        if not path.exists():
            settings = library.llama_model_quantize_default_params()
            settings.ftype, settings.nthread = _QUANTIZATIONS[kind], threads
            if code := library.llama_model_quantize(os.fsencode(plain), os.fsencode(path), settings):
                raise UserError(f"llama.cpp can't quantize to {kind} (code {code})")
        self.version = f"llama-cpp-python {library.__version__}"
        overrides: dict[str, str | int] = {"tokenizer.ggml.model": "none", "gpt2.vocab_size": rows}
        self._model = llama_cpp_library.LlamaCppModel(path, rows, config["n_positions"], 0, overrides, threads)

    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        self._model.crop(0)
        made: list[int] = []
        ids = list(prompt)
        while len(made) < count:
            made.append(int(self._model.run(ids, every=False)[0].argmax()))
            ids = made[-1:]
        return made

    def logits(self, ids: Sequence[int]) -> Array:
        self._model.crop(0)
        return self._model.run(ids, every=False)[0]

    def instructions(self) -> str:
        found = llama_cpp_library.instructions()
        return next((name for name in ("AVX512", "AVX2", "AVX", "NEON") if name in found), "unknown")


SIDES: dict[str, Callable[[Path, str, int], Side]] = {
    OURS: OurSide,
    "ctranslate2": CTranslate2Side,
    "llama.cpp": LlamaCppSide,
    "transformers": TransformersSide,
}


def tokens_of(rows: int) -> list[str]:
    """`rows` different tokens, the bytes first and the end of a text last: the sides exchange ids, but their formats need
    a vocabulary."""
    from tui_llm.llm.tokens.text import END_OF_TEXT
    from tui_llm.llm.tokens.tokenizer import byte_characters

    return [*byte_characters().values(), *(f"[PAD{id}]" for id in range(256, rows - 1)), END_OF_TEXT]


def write_source(folder: Path, model: Any) -> None:
    """The model (a `GPT`) as a Hugging Face folder, which the converters read. Raises `UserError`."""
    from tui_llm.llm.model import checkpoint

    rows = model.config.vocabulary
    if rows < LEAST_VOCABULARY:
        raise UserError(f"this model's vocabulary is {rows} tokens; to compare, {LEAST_VOCABULARY} or more are needed")
    folder.mkdir()
    checkpoint.save(model, folder, end_of_text=rows - 1)
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens_of(rows))}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def _write_plain(source: Path, path: Path, rows: int) -> None:
    import torch

    from tui_llm.llm.adapters.gguf_writer import write_gguf
    from tui_llm.llm.model import checkpoint
    from tui_llm.llm.tokens.tokenizer import from_merges

    tokens = tokens_of(rows)
    ids = {token: id for id, token in enumerate(tokens)}
    vocabulary = from_merges("bench", [], ids, {tokens[-1]: rows - 1}, source)
    write_gguf(checkpoint.load(source, torch.device("cpu")), vocabulary, path, "bench")


def _torch_instructions() -> str:
    import torch

    return torch.backends.cpu.get_cpu_capability()


def log_of(source: Path, name: str, kind: str) -> Path:
    """The file that takes what a side's libraries print."""
    return source.parent / f"{name}-{kind}.log"


def answer(side: Side, request: dict[str, Any], clock: Callable[[], float]) -> dict[str, Any]:
    """The answer to one request: its result, and the seconds that it took."""
    ids, count = request["ids"], request.get("count", 0)
    began = clock()
    if request["work"] == "write":
        result: list[Any] = side.write(ids, count)
        return {"seconds": clock() - began, "ids": result}
    logits = side.logits(ids)
    seconds = clock() - began
    return {"seconds": seconds, "logits": logits.tolist() if request["work"] == "logits" else []}


def main(arguments: Sequence[str]) -> None:
    """SIDE FOLDER TYPE THREADS CLOCK: opens the model, then answers requests until stdin ends."""
    name, folder, kind, threads, clock = arguments
    # What libraries print must not come between the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def put(content: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(content), file=out, flush=True)

    try:
        side = SIDES[name](Path(folder), kind, int(threads))
        side.write([0], 2)
        put({"version": side.version, "instructions": side.instructions()})
    except UserError as error:
        return put({"error": str(error)})
    except Exception as error:  # libraries raise all kinds of exceptions
        return put({"error": f"{type(error).__name__}: {message_line(error)}"})
    ticks = time.process_time if clock == "cpu" else time.perf_counter
    for line in sys.stdin:
        put(answer(side, json.loads(line), ticks))


if __name__ == "__main__":
    main(sys.argv[1:])
