"""Open a folder or GGUF file of any causal language model through transformers, without running its code."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from tui_llm.common import memory
from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.adapters import chat, checks, gguf_weights
from tui_llm.llm.adapters.causal import CausalPredictor
from tui_llm.llm.adapters.gguf_header import GgufInfo, read_gguf
from tui_llm.llm.adapters.gguf_vocabulary import ARRAYS, read_vocabulary
from tui_llm.llm.adapters.vocabulary import JsonTokenizer, is_failure, load_json
from tui_llm.llm.model import device
from tui_llm.llm.model.model_config import GGUF
from tui_llm.llm.tokens.folder_files import FILE

EXTRA = "pip install 'tui-llm[transformers]'"


def open_foreign(
    path: Path, name: str, place: torch.device
) -> tuple[CausalPredictor, JsonTokenizer, chat.ChatTemplate | None]:
    """The model, its vocabulary and its chat template. Raises `UserError` if the extra is missing or the model can't be
    opened."""
    library = transformers_library(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns about unusual files
        return _open(library, path, name, place)


def _open(
    library: Any, path: Path, name: str, place: torch.device
) -> tuple[CausalPredictor, JsonTokenizer, chat.ChatTemplate | None]:
    if path.suffix == GGUF:
        return _open_gguf(library, path, name, place)
    checks.check_files(path)
    raw = _checked_config(path, library)
    model, unexpected = _opened(library, path, None, place)
    model = _placed(model, path, place)
    predictor = CausalPredictor(model, name, unexpected)
    tokenizer, template = _vocabulary(library, path, name, predictor.vocabulary, model, raw)
    return predictor, tokenizer, template


def _open_gguf(
    library: Any, path: Path, name: str, place: torch.device
) -> tuple[CausalPredictor, JsonTokenizer, chat.ChatTemplate | None]:
    try:
        header = read_gguf(path, ARRAYS)
    except ImportError as error:
        raise UserError(f"{path} needs the gguf library: {EXTRA}") from error
    vocabulary = read_vocabulary(header, path)  # first: an unknown one is refused before the weights are read
    model = _placed(_opened(library, path, header, place)[0], path, place)
    predictor = CausalPredictor(model, name)
    tokenizer = vocabulary.tokenizer(name, path, predictor.vocabulary, _ends(model))
    template = header.settings.get("tokenizer.chat_template")
    return predictor, tokenizer, chat.made(template, vocabulary.special, name) if isinstance(template, str) else None


def transformers_library(name: str) -> Any:
    # Has to be set before transformers is imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"{name} is not GPT-2's layout; other models need the extra: {EXTRA}") from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _checked_config(folder: Path, library: Any) -> dict[str, Any]:
    """The folder's config.json, after checking that transformers supports the model and that it has safetensors."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a model folder: it has no config.json")
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a model's config: a JSON object is needed")
    kind = raw.get("model_type")
    known = library.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if not isinstance(kind, str) or kind not in known:
        own = " and contains code, which is never run" if raw.get("auto_map") else ""
        raise UserError(
            f"{path}: transformers {library.__version__} does not support model_type {kind!r}{own}; try a newer one"
        )
    if any(folder.glob("*.safetensors")):
        return raw
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt*", "*.ckpt") for path in folder.glob(pattern))
    if pickles:
        raise UserError(
            f"{folder} has only {pickles[0]}, a pickle, which can run code and is never opened; convert it to safetensors"
        )
    raise UserError(f"{folder} has no model.safetensors")


def _opened(library: Any, path: Path, header: GgufInfo | None, place: torch.device) -> tuple[Any, list[str]]:
    """The model with its weights, and the names of stored tensors that it doesn't use; `header` is that of a GGUF file.
    Raises `UserError`, whatever is wrong with the file."""
    try:
        try:
            model, lacking, unexpected = (
                (*gguf_weights.load(library, path, header), [])
                if header
                else _from_folder(library, path, place, "sdpa")
            )
        except ValueError as error:
            if header or ("scaled_dot_product" not in str(error) and "sdpa" not in str(error).lower()):
                raise
            model, lacking, unexpected = _from_folder(library, path, place, "eager")
    except (UserError, MemoryError):
        raise
    except ImportError as error:
        missing = "the gguf library" if "gguf" in str(error).lower() else message_line(error)
        raise UserError(f"{path} needs {missing}: {EXTRA}") from error
    except Exception as error:  # damaged files raise all kinds of exceptions
        if "ignore_mismatched_sizes" in str(error):  # its message refers to a report that is not shown
            raise UserError(
                f"{path}: its weights are of other sizes than config.json says; they are of different models"
            ) from error
        if "Unrecognized configuration class" in str(error):  # its message lists every kind of model there is
            raise UserError(
                f"{path}: {_kind(path)} is not a causal language model, which predicts the next token from those before "
                "it; open one such as GPT-2 or Llama"
            ) from error
        raise UserError(f"transformers can't open {path}: {message_line(error)}") from error
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UserError(f"{path} lacks the weights {lacking[0]}{more}: the model is incomplete; get it again")
    return model, unexpected


def _kind(path: Path) -> str:
    raw = read_json(path / "config.json")
    return str(raw.get("model_type")) if isinstance(raw, dict) else "unknown"


def _from_folder(library: Any, path: Path, place: torch.device, attention: str) -> tuple[Any, list[str], list[str]]:
    """The model, the names of missing weights, and those of unused ones."""
    config = library.AutoConfig.from_pretrained(str(path), trust_remote_code=False, local_files_only=True)
    weights = checks.stored(path, quantized=getattr(config, "quantization_config", None) is not None)
    more = checks.check_config(library, config, weights, path / "config.json")
    model, info = library.AutoModelForCausalLM.from_pretrained(
        str(path),
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
        attn_implementation=attention,  # explicit, so that a config can't request a kernel to be downloaded
        dtype=_precision(path, weights, more, place),
        output_loading_info=True,
    )
    lacking = [*sorted(info.get("missing_keys") or ()), *map(str, info.get("mismatched_keys") or ())]
    return model, lacking, sorted(info.get("unexpected_keys") or ())


def _placed(model: Any, path: Path, place: torch.device) -> Any:
    if getattr(model.config.get_text_config(decoder=True), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # SDPA has no soft cap (Gemma 2)
    try:
        return model.to(place).eval().requires_grad_(False)
    except RuntimeError as error:
        raise UserError(f"{path} can't be put on {place}: {message_line(error)}") from error


def _precision(path: Path, weights: checks.StoredWeights, more: int, place: torch.device) -> torch.dtype | str:
    """float32 for exact results, or the stored dtype if float32 would fill the memory. Raises `UserError` if both are
    too large."""
    free = device.free_bytes(place)
    if free is None or 4 * weights.numbers + more <= 0.8 * free:
        return torch.float32
    memory.check(weights.bytes + more, free, f"opening {path}")
    return "auto"


def _vocabulary(
    library: Any, where: Path, name: str, rows: int, model: Any, raw: dict[str, Any]
) -> tuple[JsonTokenizer, chat.ChatTemplate | None]:
    ends = _ends(model)
    if (where / FILE).is_file():
        begin = raw.get("bos_token_id") if isinstance(raw.get("bos_token_id"), int) else None
        gpt2 = raw.get("model_type") == "gpt2"
        return load_json(where, name, rows, begin, ends, gpt2=gpt2), chat.template_of(where, name)
    checks.check_vocabulary(where)
    try:
        # vocab.json with merges.txt, SentencePiece's tokenizer.model: transformers converts it to `tokenizers`.
        made = library.AutoTokenizer.from_pretrained(
            str(where), trust_remote_code=False, local_files_only=True, use_fast=True
        )
        text = made.backend_tokenizer.to_str()
    except ImportError as error:
        raise UserError(f"the vocabulary of {where} needs more: {message_line(error)}") from error
    except BaseException as error:
        if not is_failure(error):
            raise
        raise UserError(f"transformers can't open the vocabulary of {where}: {message_line(error)}") from error
    special = {key: value for key, value in made.special_tokens_map.items() if isinstance(value, str)}
    end = special.get("eos_token")
    tokenizer = JsonTokenizer(name, text, where, rows, special.get("bos_token"), [*ends, *([end] if end else [])])
    template = getattr(made, "chat_template", None)
    return tokenizer, chat.made(template, special, name) if isinstance(template, str) else chat.template_of(where, name)


def _ends(model: Any) -> list[int]:
    """The end-of-text ids from the generation config and the config."""
    ends: list[int] = []
    for settings in (getattr(model, "generation_config", None), model.config):
        value = getattr(settings, "eos_token_id", None)
        ends += [value] if isinstance(value, int) else [id for id in value or () if isinstance(id, int)]
    return ends


def reference_model(path: Path, name: str, place: torch.device) -> Any:
    """A folder's model as transformers opens it, also if it is a GPT-2. Raises `UserError`, also where transformers would make
    random weights."""
    library = transformers_library(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks.check_files(path)
        _checked_config(path, library)
        try:
            model, lacking, _ = _from_folder(library, path, place, "sdpa")
            if lacking:  # by their names, such as those of a compiled model
                raise UserError(
                    f"it finds no weights for {lacking[0]}, of {len(lacking)} such names, and makes random ones"
                )
            return _placed(model, path, place)
        except UserError:
            raise
        except Exception as error:  # damaged files raise all kinds of exceptions
            raise UserError(f"transformers can't open {path}: {message_line(error)}") from error


def reference_tokenizer(path: Path, name: str, *, generic: bool = False) -> Any:
    """A folder's tokenizer as transformers opens it; `generic`: tokenizer.json in the class without rules of its own.
    Raises `UserError`."""
    library = transformers_library(name)
    checks.check_files(path)
    checks.check_vocabulary(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kind = library.PreTrainedTokenizerFast if generic else library.AutoTokenizer
            return kind.from_pretrained(str(path), trust_remote_code=False, local_files_only=True)
        except BaseException as error:
            if not is_failure(error):
                raise
            raise UserError(f"transformers can't open the vocabulary of {path}: {message_line(error)}") from error
