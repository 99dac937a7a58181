"""The weights of a GGUF file through transformers, and what transformers leaves out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign, whole_number
from tui_llm.llm.adapters import checks, gguf_config
from tui_llm.llm.adapters.gguf_header import GgufInfo
from tui_llm.llm.model.layouts import MOST_ROWS

_FACTORS = "rope_freqs.weight"


def load(library: Any, path: Path, header: GgufInfo) -> tuple[Any, list[str]]:
    """The model with its weights, dequantized to float32, and the names of missing weights. Does not call
    `from_pretrained`, which would need another package. Raises `UserError` if the file has what transformers would
    ignore."""
    from transformers import modeling_gguf_pytorch_utils as reader

    reader.tqdm = lambda tensors, **words: tensors  # suppress its progress bar, which would garble the screen
    config = library.AutoConfig.from_pretrained(
        str(path.parent), gguf_file=path.name, trust_remote_code=False, local_files_only=True
    )
    gguf_config.set_config(reader, config, header, path)
    if config.model_type == "gpt2":
        _set_gpt2(config, header, path)
    stored = checks.StoredWeights(len(header.tensors), header.numbers, 4 * header.numbers, header.numbers)
    more = checks.check_config(library, config, stored, path)
    # 4 bytes for each element, in the file's tensors and in the model's.
    memory.check(8 * header.numbers + more, memory.free_bytes(), f"opening {path}")
    model = library.AutoModelForCausalLM.from_config(
        config, trust_remote_code=False, attn_implementation="sdpa", dtype=torch.float32
    )
    gguf_config.check_rotary(model, header, path)
    _check_read(reader, model, header, path)
    tensors = reader.load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    found = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    if _FACTORS in header.tensors:
        _scale_rotary(model, header, path)
    names = {name: parameter.data_ptr() for name, parameter in model.named_parameters(remove_duplicate=False)}
    there = {names[name] for name in tensors if name in names}
    return model, [name for name in found.missing_keys if name in names and names[name] not in there]


def _check_read(reader: Any, model: Any, header: GgufInfo, path: Path) -> None:
    """Raises `UserError` if the file has tensors that transformers (5.24) does not read."""
    kind = str(header.settings.get("general.architecture"))
    known = reader.get_gguf_hf_weights_map(model, reader.TENSOR_PROCESSORS.get(kind, reader.TensorProcessor)(config={}))
    ignored = sorted(
        name
        for name in header.tensors.keys() - known.keys() - {_FACTORS, "output.weight"}
        if "_exps" not in name and "shexp" not in name
    )
    if ignored:
        raise UserError(
            f"{path} has weights that transformers would ignore, such as {ignored[0][:60]!r}: the numbers would be wrong; open "
            "the model's Hugging Face folder instead"
        )


def _scale_rotary(model: Any, header: GgufInfo, path: Path) -> None:
    """Divide the rotary frequencies by the file's factors, as llama.cpp does. (transformers 5.24 leaves them out; Llama
    3.1 and later have them.)"""
    stored, rotary = header.tensors[_FACTORS], getattr(model.base_model, "rotary_emb", None)
    frequencies = getattr(rotary, "inv_freq", None)
    if frequencies is None or stored.dtype != "F32" or stored.numbers != frequencies.numel():
        raise UserError(f"{path} has {_FACTORS}, which does not fit its model; get it again")
    with open_foreign(path) as file:
        file.seek(header.start + stored.offset)
        factors = torch.frombuffer(bytearray(file.read(stored.length)), dtype=torch.float32)
    if not bool((factors > 0).all()):
        raise UserError(f"{path} has a factor in {_FACTORS} that is not positive; get it again")
    for name in ("inv_freq", "original_inv_freq"):
        if getattr(rotary, name, None) is not None:
            setattr(rotary, name, frequencies / factors)


def _set_gpt2(config: Any, header: GgufInfo, path: Path) -> None:
    """transformers (5.24) reads neither GPT-2's context nor the width of its MLP, and leaves both at GPT-2 124M's."""
    for name, key in (("n_positions", "gpt2.context_length"), ("n_inner", "gpt2.feed_forward_length")):
        size = whole_number(header.settings.get(key), 1, MOST_ROWS)
        if size is None:
            raise UserError(
                f"{path}: its {key} is {str(header.settings.get(key))[:40]}, not a whole number; get it again"
            )
        setattr(config, name, size)
