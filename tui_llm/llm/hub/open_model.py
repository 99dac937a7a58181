"""Open a model folder or file: GPT-2 in our own `llm/model/model.py`, any other through `adapters`. Checkpoint files of
other training programs are read by `formats`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.facts.model import ModelChoices
from tui_llm.llm.adapters import description
from tui_llm.llm.formats import detect
from tui_llm.llm.hub.choices import of_vocabulary
from tui_llm.llm.hub.hub import load_trained, load_vocabulary, vocabulary_of_file
from tui_llm.llm.model import numpy_gpt, switches
from tui_llm.llm.model.model_config import GGUF, is_gpt2, is_gpt2_type, read_config, untied_note
from tui_llm.llm.model.numpy_gpt import NumpyGPT
from tui_llm.llm.model.tensor_shapes import headers_once
from tui_llm.llm.tokens import tokenizer

if TYPE_CHECKING:
    import torch

    from tui_llm.llm.adapters.chat import ChatTemplate
    from tui_llm.llm.adapters.gguf_quantized import GgufPredictor
    from tui_llm.llm.model.model import GPT
    from tui_llm.llm.model.predictor import Predictor


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """`gpt` is None if the model runs through transformers, llama.cpp or in numpy; `kind` is its architecture; `note`
    says what was assumed to open it, or is empty."""

    predictor: Predictor
    tokenizer: tokenizer.Tokenizer
    gpt: GPT | None = None
    chat: ChatTemplate | None = None
    kind: str = "gpt2"
    note: str = ""

    @property
    def numpy(self) -> NumpyGPT | None:
        """The predictor, if it is the one without torch."""
        return self.predictor if isinstance(self.predictor, NumpyGPT) else None

    @property
    def quantized(self) -> GgufPredictor | None:
        """The predictor, if it is llama.cpp's."""
        if self.gpt is not None or self.numpy is not None:
            return None  # without the import
        from tui_llm.llm.adapters.gguf_quantized import GgufPredictor

        return self.predictor if isinstance(self.predictor, GgufPredictor) else None

    @property
    def reader(self) -> str:
        """What computes: torch, numpy or llama.cpp."""
        if self.quantized is not None:
            return "llama.cpp"
        return "torch" if self.numpy is None else "numpy"

    @property
    def library(self) -> str:
        """The library that a model of another architecture runs through."""
        return "transformers" if self.quantized is None else self.reader

    @property
    def kernel(self) -> str:
        """The kernel's name (`weight_names.KERNELS`); empty if it is torch's, the usual one."""
        name = str(getattr(self.predictor, "kernel", ""))
        return "" if name == "torch" else name


def open_without_torch(path: Path, name: str) -> LoadedModel | None:
    """As `open_model`, without torch; None if the model is one neither for `numpy_gpt` nor for llama.cpp. Raises
    `UserError`."""
    if detect.is_file(path):
        return None
    with memory.enough(f"open {name}"):
        if not is_gpt2(path):
            made = _quantized(path, name)
            return made if isinstance(made, LoadedModel) else None
        model = numpy_gpt.load(path)
        return None if model is None else _gpt_folder(path, name, model, model.vocabulary)


@headers_once()
def opens_in_numpy(path: Path) -> bool:
    """Whether `open_in_numpy` opens this folder or file."""
    try:
        return not detect.is_file(path) and is_gpt2(path) and numpy_gpt.fits(path)
    except UserError:
        return False


def in_torch(model: LoadedModel, place: torch.device) -> LoadedModel:
    """The same weights in torch, exact; the model itself if it is there already. Raises `UserError` if memory is too
    low."""
    if model.numpy is None:
        return model
    from tui_llm.llm.model import checkpoint, fast_decode

    with memory.enough("open the model"):
        gpt = checkpoint.from_arrays(model.numpy.config, model.numpy.weights, place)
        return dataclasses.replace(model, predictor=fast_decode.predictor(gpt), gpt=gpt)


def open_model(
    path: Path, name: str, place: torch.device, weights: str = "fp32", *, quantized: bool = True
) -> LoadedModel:
    """`weights`: the weight format (`weight_names.WEIGHTS`). quantized: whether llama.cpp reads a quantized GGUF file,
    if it is installed and `place` is the CPU, instead of transformers. Raises `UserError` if it can't be opened, or
    memory is too low."""
    with memory.enough(f"open {name}"):
        return _opened(path, name, place, weights, quantized)


def _opened(path: Path, name: str, place: torch.device, weights: str, quantized: bool) -> LoadedModel:
    if detect.is_file(path):
        return _from_file(path, name, place, weights)
    if not _is_ours(path, place):
        _check_exact(name, weights)
        made = _quantized(path, name) if quantized and place.type == "cpu" else ""
        if isinstance(made, LoadedModel):
            return made
        from tui_llm.llm.adapters.foreign import open_foreign

        predictor, vocabulary, chat = open_foreign(path, name, place)
        kind = str(getattr(predictor.model.config, "model_type", "other"))
        return LoadedModel(predictor, vocabulary, None, chat, kind, made)
    from tui_llm.llm.model import checkpoint, fast_decode

    gpt, kernel = checkpoint.load_prepared(path, place, weights)
    loaded = _gpt_folder(path, name, gpt, gpt.config.vocabulary)
    kind = gpt.config.model_type
    return dataclasses.replace(loaded, predictor=fast_decode.FastPredictor(gpt, kernel.name), gpt=gpt, kind=kind)


def _is_ours(path: Path, place: torch.device) -> bool:
    """Whether our own GPT opens a folder. A model that has GPT-2's layout, or has been saved by a run, always does; another
    that could runs through transformers if it needs its tokenizer, or if only its stored weights fit into memory."""
    if not is_gpt2(path):
        return False
    if is_gpt2_type(path):
        return True
    if not any((path / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        return False
    from tui_llm.llm.model import device, stored_gpt

    free = device.free_bytes(place)
    return free is None or stored_gpt.need(read_config(path)) <= 0.8 * free


def _quantized(path: Path, name: str) -> LoadedModel | str:
    """The model in llama.cpp, or a note that says why transformers has to read it."""
    if path.suffix != GGUF:
        return ""
    from tui_llm.llm.adapters.gguf_quantized import open_quantized

    made = open_quantized(path, name)
    if isinstance(made, str):
        return made
    predictor, vocabulary, chat = made
    return LoadedModel(predictor, vocabulary, None, chat, predictor.kind)


def _gpt_folder(path: Path, name: str, model: Any, rows: int) -> LoadedModel:
    """`rows`: those of the model's embedding."""
    own = load_vocabulary(path, name, rows)
    _check_rows(path, own, rows)
    from tui_llm.llm.adapters.chat import template_of

    return LoadedModel(model, own, None, template_of(path, name), note=untied_note(path))


def _check_exact(name: str, weights: str) -> None:
    if weights != "fp32":
        raise UserError(
            f"{name} runs through transformers or llama.cpp with the weights that it has; open it with --weights fp32"
        )


def _from_file(path: Path, name: str, place: torch.device, weights: str) -> LoadedModel:
    """A checkpoint file of another training program."""
    kind = detect.format_of(path)
    gpt: GPT | None = None
    if kind in (detect.NANOGPT, detect.LLM_C):
        from tui_llm.llm.model import fast_decode

        gpt, note = _gpt_from_file(path, kind, place)
        predictor, rows = fast_decode.predictor(gpt, weights), gpt.config.vocabulary
    else:
        from tui_llm.llm.formats import llama2_c, nanochat

        _check_exact(name, weights)
        predictor, note = (llama2_c if kind == detect.LLAMA2_C else nanochat).load(path, name, place)
        rows = predictor.vocabulary
    own, whence = vocabulary_of_file(path, name, rows)
    if gpt is not None:
        _check_rows(path, own, gpt.config.vocabulary)
    architecture = "gpt2" if gpt is not None else str(getattr(predictor.model.config, "model_type", "other"))
    return LoadedModel(predictor, own, gpt, None, architecture, f"{note}; {whence}")


def _gpt_from_file(path: Path, kind: str, place: torch.device) -> tuple[GPT, str]:
    from tui_llm.llm.formats import llm_c, nanogpt

    return (nanogpt if kind == detect.NANOGPT else llm_c).load(path, place)


def open_gpt(path: Path, name: str, place: torch.device) -> tuple[GPT, tokenizer.Tokenizer]:
    """A GPT-2 model and its vocabulary. Raises `UserError` if it is none, or if model and vocabulary don't match."""
    if detect.is_file(path):
        kind = detect.format_of(path)
        if kind not in (detect.NANOGPT, detect.LLM_C):
            raise UserError(f"{path} is a checkpoint of {kind}, not a GPT-2; open one of GPT-2's layout, such as nano")
        gpt, _ = _gpt_from_file(path, kind, place)
        own, _ = vocabulary_of_file(path, name, gpt.config.vocabulary)
    else:
        from tui_llm.llm.model import checkpoint

        gpt = checkpoint.load(path, place)
        own = load_trained(path, name, gpt.config.vocabulary)
    _check_rows(path, own, gpt.config.vocabulary)
    gpt.used = own.size
    return gpt, own


def choices_of(model: LoadedModel, path: Path) -> ModelChoices:
    """What its numbers depend on beside weights and text; `path` is its folder or file."""
    own: GPT | NumpyGPT | None = model.gpt or model.numpy
    tied: bool | None = None
    computed, named = "float32", tuple[str, ...]()
    stored = description.stored_dtype(path)
    if own is not None:
        tied = own.config.tied  # in fewer bits, embedding and head have tensors of their own
        named = tuple(name for name in switches.names_of(own.config) if name != switches.UNTIED)
    elif (quantized := model.quantized) is not None:
        tied, computed, stored = quantized.tied, quantized.computed, quantized.stored
    else:
        embedding, head = embedding_and_head(model)
        computed = str(embedding.dtype).removeprefix("torch.")
        if head is not None:
            tied = head is embedding or head.data_ptr() == embedding.data_ptr()
    return of_vocabulary(
        model.tokenizer,
        tied=tied,
        stored=stored,
        computed=computed,
        padding=max(0, model.predictor.vocabulary - model.tokenizer.size),
        chat=model.chat is not None,
        longrope=None if own is not None else description.longrope_of(path),
        switches=named,
    )


def embedding_and_head(model: LoadedModel) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weights of the token embedding and of the output head; None if there is no such module."""
    if model.gpt is not None:
        return model.gpt.tokens.weight, model.gpt.head.weight
    library: Any = model.predictor.model  # type: ignore[attr-defined]
    head = library.get_output_embeddings()
    return library.get_input_embeddings().weight, None if head is None else head.weight


def _check_rows(path: Path, own: tokenizer.Tokenizer, rows: int) -> None:
    if own.size > rows:
        raise UserError(
            f"{path}: its vocabulary has {own.size} tokens, its model only {rows}; they are of different models"
        )
