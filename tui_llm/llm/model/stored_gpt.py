"""The tensors of a model folder in Hugging Face's GPT-2 layout, or in one of `layouts.py`: found and checked before any is
read. No torch here.

`checkpoint.py` reads them with torch, `numpy_gpt.py` without.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.llm.model import layouts, shards, switches
from tui_llm.llm.model.layouts import shown
from tui_llm.llm.model.model_config import prefix_of, read_config
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.shards import StoredTensor

# Our name of a block's module → Hugging Face's. Its "Conv1D" weights are transposed compared with nn.Linear: (in, out).
_BLOCK = {
    "norm1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "norm2": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_TOP = {"tokens.weight": "wte.weight", "positions.weight": "wpe.weight", "norm.weight": "ln_f.weight",
        "norm.bias": "ln_f.bias", "head.weight": "lm_head.weight"}  # fmt: skip

_TITLES = {layout.model_type: layout.title for layout in switches.LAYOUTS if layout.model_type != "gpt2"}


def hugging_face_names(name: str, model_type: str) -> tuple[tuple[str, ...], bool]:
    """The tensors that a parameter of `GPT` is in Hugging Face's layout (without `transformer.` or `model.`), one below the
    other, and whether they are stored transposed."""
    if model_type in layouts.LAYOUTS:
        return layouts.tensor_names(name, model_type), False
    key, transposed = hugging_face_name(name)
    return (key,), transposed


def hugging_face_name(name: str) -> tuple[str, bool]:
    """The same in GPT-2's layout, where each parameter is one tensor."""
    if name in _TOP:
        return _TOP[name], False
    _, layer, rest = name.split(".", 2)
    module, _, leaf = rest.rpartition(".")
    return f"h.{layer}.{_BLOCK[module]}.{leaf}", leaf == "weight" and not module.startswith("norm")


@dataclass(frozen=True, slots=True)
class StoredParameter:
    """Where a parameter is stored: its name in the weight files, its header entry, whether it is stored transposed, and
    the tensors with the rows below: a layout can have three matrices where ours has one."""

    key: str
    tensor: StoredTensor
    transposed: bool
    below: tuple[StoredTensor, ...] = ()

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """All of them."""
        return (self.tensor, *self.below)

    @property
    def bytes(self) -> int:
        return sum(one.info.bytes for one in self.tensors)


@dataclass(frozen=True, slots=True)
class StoredGPT:
    """A GPT-2's shape, and where each of its parameters is, by our names."""

    config: GPTConfig
    tensors: dict[str, StoredParameter]


def find(folder: Path) -> StoredGPT:
    """Reads the config and the headers. Raises `UserError` if the folder has no whole GPT-2."""
    config = read_config(folder)
    tensors = shards.read_tensors(folder)
    if not tensors:
        raise UserError(f"{folder} has {_no_weights(folder)}")
    return StoredGPT(config, _checked(folder, tensors, config))


def need(config: GPTConfig, size: int = 4) -> int:
    """Bytes of memory to load and run the model: its weights, of `size` bytes each, and its KV cache in float32, plus two
    copies of a matrix while it is transposed."""
    cache = 2 * config.layers * config.context * config.key_heads * config.size
    return size * config.parameters() + 4 * (cache + 3 * config.width * config.hidden)


def _no_weights(folder: Path) -> str:
    if (folder / shards.WHOLE).is_file():
        return f"no tensor in its {shards.WHOLE}; get it again"
    if pickles := sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*")):
        return f"only {pickles[0]}, a pickle, which can run code and is never opened; convert it to safetensors"
    if any(folder.glob("model-*-of-*.safetensors")):
        return f"shards of its weights, but no {shards.INDEX}, which lists them; download the complete model"
    return f"no {shards.WHOLE}"


def _checked(folder: Path, tensors: dict[str, StoredTensor], config: GPTConfig) -> dict[str, StoredParameter]:
    """Our parameter name → its tensor in the weight files. Compares every tensor's shape with the config's before any
    memory is allocated, so that a config with wrong sizes can't exhaust the memory. Raises `UserError`."""
    prefix = prefix_of(tensors)
    found: dict[str, StoredParameter] = {}
    used: set[str] = set()
    for name, shape in config.shapes():  # stops at the first missing one: a config may claim a million layers
        keys, transposed = _find(name, tensors, folder, prefix, config.model_type)
        rows = layouts.split_rows(config) if len(keys) > 1 else shape[:1]
        for key, count in zip(keys, rows, strict=True):
            path, tensor, wanted = tensors[key].path, tensors[key].info, (count, *shape[1:])
            wanted = wanted[::-1] if transposed else wanted
            if tensor.shape != wanted:
                raise UserError(
                    f"{path}: {key} is {list(tensor.shape)}, but config.json says {list(wanted)}; they are of different "
                    "models"
                )
            if not tensor.dtype.startswith(("F", "BF")):
                raise UserError(f"{path}: {key} is of type {tensor.dtype}; weights in floating point are needed")
        first, *below = (tensors[key] for key in keys)
        found[name] = StoredParameter(keys[0], first, transposed, tuple(below))
        used.update(keys)
    if config.model_type in layouts.LAYOUTS:
        _check_blocks(folder, set(tensors) - used, config)
    return found


def _check_blocks(folder: Path, others: set[str], config: GPTConfig) -> None:
    """Raises `UserError` if blocks have further weights: the model computes something that this version does not know. GPT-2's
    layout is left out: its files may have the causal masks."""
    extra = sorted(name for name in others if "layers." in name and not name.endswith("inv_freq"))
    if extra:
        raise UserError(
            f"{folder} has {shown(extra[0])}, which a {_TITLES[config.model_type]} does not have: it was saved by another program, or "
            "by a newer tui-llm; update tui-llm to open it"
        )


def _find(
    name: str, tensors: dict[str, StoredTensor], folder: Path, prefix: str, model_type: str
) -> tuple[list[str], bool]:
    keys, transposed = hugging_face_names(name, model_type)
    base = "model." if model_type in layouts.LAYOUTS else "transformer."
    found = []
    for key in keys:
        # The original GPT-2 folders have no prefix.
        there = next((one for one in (f"{prefix}{base}{key}", prefix + key) if one in tensors), None)
        if there is None:
            where = folder / shards.WHOLE if (folder / shards.WHOLE).is_file() else folder
            raise UserError(f"{where} has no tensor {key}; it is not a whole {_TITLES.get(model_type, 'GPT-2')}")
        found.append(there)
    return found, transposed
