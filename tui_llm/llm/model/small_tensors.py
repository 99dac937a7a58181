"""A few tensors and their metadata as the bytes of a safetensors file, the same for the same input."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import torch
from torch import Tensor

_NAMES = {torch.float32: ("F32", "<f4"), torch.float16: ("F16", "<f2")}


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The file: https://huggingface.co/docs/safetensors, "Format". Written here because `safetensors.torch.save` orders
    several metadata differently from call to call, so that equal tensors would give different files. Empty metadata are
    left out. tensors: float32 or float16."""
    header: dict[str, object] = {"__metadata__": {name: text for name, text in metadata.items() if text}}
    parts, begin = [], 0
    for name, tensor in tensors.items():
        dtype, stored = _NAMES[tensor.dtype]
        values = tensor.detach().cpu().contiguous().numpy().astype(stored).tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, begin + len(values)]}
        parts.append(values)
        begin += len(values)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # the values are aligned
    return struct.pack("<Q", len(head)) + head + b"".join(parts)
