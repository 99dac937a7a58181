"""The private and undocumented names of torch that the code needs, all in this file.

pyproject.toml allows torch 2.9 to 2.13. All of these names are in both, with the same signatures (`_linear_pointwise`,
which not every build has, was looked up in 2.13 only). `tests/llm/test_torch_private.py` fails if a name is gone or its
signature has changed; `tests/test_walls.py` fails if another file uses a private name of torch, or `torch.ops`.

- `aten::_scaled_dot_product_flash_attention_for_cpu` and its backward: `F.scaled_dot_product_attention` selects it on a
  CPU, but only inside autograd. fast.py computes a block's gradients itself, so it needs the log-sum-exp of the scores,
  which the public function does not return.
- `torch._softmax_backward_data`: the gradient through softmax from its output, in one pass. The public way is autograd.
- `torch.native_layer_norm` and `aten::native_layer_norm_backward`: `F.layer_norm` does not return the mean and the
  reciprocal of the standard deviation, which the gradients are computed from.
- `mkldnn::_linear_pointwise`: a linear layer in fp32 by oneDNN. On a CPU `F.linear` uses MKL if torch has it, which
  reads a matrix for one token at half the memory bandwidth (dev/LOG.md), and there is no public switch.
- `quantized::embedding_bag_byte_rowwise_offsets`, `…_prepack`, `…_unpack`: a weighted sum of byte rows. The documented
  quantized modules have no matrix-vector product whose weights stay int8 at memory bandwidth (dev/LOG.md).
- `quantized::linear_prepack_fp16`, `linear_dynamic_fp16`, `linear_unpack_fp16`: fbgemm's product with fp16 weights and
  fp32 inputs. The documented module, `torch.ao.nn.quantized.dynamic.Linear`, imports torch._dynamo, and is deprecated.
- `torch.cpu._is_avx512_bf16_supported`: whether the CPU multiplies in bfloat16. There is no public way to ask.
- The functions that `torch.optim` decorates, reached through `__wrapped__`: the decorators of an optimizer's constructor
  and `step` import torch._dynamo, and with it torch._inductor and sympy, only to say that it must not compile them.
- `torch.optim._muon._zeropower_via_newtonschulz` and `_adjust_lr`: the two parts of `torch.optim.Muon`'s update. Its
  `step` applies the weight decay itself, and cautious weight decay needs the update first.
- `torch.distributed.distributed_c10d._get_default_store`: the key-value store of the process group, for the message of
  a process that has failed. `torch.distributed.TCPStore` would need a port of its own.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import Tensor


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Causal attention on a CPU, without dropout: the output (B, H, T, D), and the log-sum-exp of the scores."""
    output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
    return output, sums


def flash_attention_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, output: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, given that of `flash_attention`'s output, g, and what it returned."""
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        g, q, k, v, output, sums, 0.0, True
    )
    return dq, dk, dv


def softmax_backward(g: Tensor, p: Tensor) -> Tensor:
    """The gradient of the scores, given that of p = softmax(scores, −1), g."""
    made: Tensor = torch._softmax_backward_data(g, p, -1, p.dtype)
    return made


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm over the last dimension of x (N, C): the output, the mean and 1 / the standard deviation."""
    output, mean, rstd = torch.native_layer_norm(x, [x.size(1)], scale, shift, epsilon)
    return output, mean, rstd


def layer_norm_backward(
    g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x (newly allocated), scale and shift, given that of `layer_norm`'s output, g."""
    dx, dscale, dshift = torch.ops.aten.native_layer_norm_backward(
        g, x, [x.size(1)], mean, rstd, scale, shift, [True, True, True]
    )
    return dx, dscale, dshift


HAS_ONEDNN_LINEAR = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
_linear_pointwise: Any = torch.ops.mkldnn._linear_pointwise.default if HAS_ONEDNN_LINEAR else None


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` on a CPU, by oneDNN; only in a dtype that it multiplies in. Not differentiable."""
    made: Tensor = _linear_pointwise(x, weight, bias, "none", [], "")
    return made


@functools.cache
def onednn_multiplies_in(dtype: torch.dtype) -> bool:
    """Whether `onednn_linear` works in `dtype` here. On a CPU without bf16 instructions, and with `ONEDNN_MAX_CPU_ISA`
    below AVX-512, oneDNN has no bf16 product, whatever torch says of the CPU; calling it is the only way to know."""
    if not HAS_ONEDNN_LINEAR:
        return False
    try:
        onednn_linear(torch.zeros(2, 2, dtype=dtype), torch.zeros(2, 2, dtype=dtype), None)
    except RuntimeError:
        return False
    return True


# (packed, ids, offsets, scale_grad_by_freq, mode, pruned_weights, per_sample_weights): the sum of each bag's rows
byte_bags: Any = torch.ops.quantized.embedding_bag_byte_rowwise_offsets.default


def pack_bytes(rows: Tensor) -> Tensor:
    """Quantizes each row to bytes, followed by its scale and its minimum, fp32 each."""
    packed: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(rows)
    return packed


def unpack_bytes(packed: Tensor) -> Tensor:
    """The rows, in fp32, of what `pack_bytes` made."""
    rows: Tensor = torch.ops.quantized.embedding_bag_byte_unpack(packed)
    return rows


def multiplies_in_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products, and torch may use them (ATEN_CPU_CAPABILITY); False if
    this torch can't tell."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check()) and "AVX512" in torch.backends.cpu.get_cpu_capability()


def has_amx() -> bool:
    """Whether this CPU has AMX's tiles, which multiply bfloat16 matrices; False if this torch can't tell."""
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(check and check())


class _WithoutDynamo(torch.optim.Optimizer):
    """The methods of an optimizer without their decorators. Not to be compiled."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(_WithoutDynamo, torch.optim.AdamW):
    """`torch.optim.AdamW` that does not import torch._dynamo; not for `differentiable`."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class SGD(_WithoutDynamo, torch.optim.SGD):
    """`torch.optim.SGD` that does not import torch._dynamo; not for `differentiable`."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class Muon(_WithoutDynamo, torch.optim.Muon):
    """`torch.optim.Muon` that does not import torch._dynamo."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Muon.step))


def muon_update(direction: Tensor, group: dict[str, Any]) -> tuple[Tensor, float]:
    """Muon's update of a matrix (rows, columns): `direction` orthogonalized, bfloat16, and its learning rate, both with the
    settings of `group`, a parameter group of `Muon`."""
    from torch.optim import _muon

    update: Tensor = _muon._zeropower_via_newtonschulz(
        direction, group["ns_coefficients"], group["ns_steps"], group["eps"]
    )
    return update, float(_muon._adjust_lr(group["lr"], group["adjust_lr_fn"], direction.shape))


def default_store() -> Any:
    """The key-value store that the processes of the default process group share."""
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()


def fbgemm_half(weight: Tensor) -> Any:
    """A weight (O, C) packed in fp16 for `fbgemm_half_linear`."""
    return torch.ops.quantized.linear_prepack_fp16(weight, None)


def fbgemm_half_linear(x: Tensor, packed: Any) -> Tensor:
    """(T, C) → (T, O), fp32, with fp16 weights and fp32 sums."""
    made: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed)
    return made


def fbgemm_half_weight(packed: Any) -> Tensor:
    """The weight (O, C), in fp32, of what `fbgemm_half` made."""
    weight: Tensor = torch.ops.quantized.linear_unpack_fp16(packed)[0]
    return weight
