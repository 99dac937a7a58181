"""torch's private names are still there, with the signatures that llm/model/torch_private.py relies on.

If one of these fails with a new torch, see there what the name is needed for, and whether a public one does it now.
"""

from __future__ import annotations

import copy
import inspect
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from tui_llm.llm.model import torch_private

SCHEMAS = (
    "aten::_scaled_dot_product_flash_attention_for_cpu(Tensor query, Tensor key, Tensor value, float dropout_p=0., "
    "bool is_causal=False, *, Tensor? attn_mask=None, float? scale=None) -> (Tensor output, Tensor logsumexp)",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward(Tensor grad_out, Tensor query, Tensor key, "
    "Tensor value, Tensor out, Tensor logsumexp, float dropout_p, bool is_causal, *, Tensor? attn_mask=None, "
    "float? scale=None) -> (Tensor grad_query, Tensor grad_key, Tensor grad_value)",
    "aten::_softmax_backward_data(Tensor grad_output, Tensor output, int dim, ScalarType input_dtype) -> Tensor",
    "aten::native_layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight, Tensor? bias, float eps) -> "
    "(Tensor, Tensor, Tensor)",
    "aten::native_layer_norm_backward(Tensor grad_out, Tensor input, SymInt[] normalized_shape, Tensor mean, "
    "Tensor rstd, Tensor? weight, Tensor? bias, bool[3] output_mask) -> (Tensor, Tensor, Tensor)",
    "quantized::embedding_bag_byte_rowwise_offsets(Tensor weight, Tensor indices, Tensor? offsets=None, "
    "bool scale_grad_by_freq=False, int mode=0, bool pruned_weights=False, Tensor? per_sample_weights=None, "
    "Tensor? compressed_indices_mapping=None, bool include_last_offset=False) -> Tensor",
    "quantized::embedding_bag_byte_prepack(Tensor weight) -> Tensor",
    "quantized::embedding_bag_byte_unpack(Tensor weight) -> Tensor",
    "quantized::linear_prepack_fp16(Tensor W, Tensor? B=None) -> "
    "__torch__.torch.classes.quantized.LinearPackedParamsBase W_prepack",
    "quantized::linear_dynamic_fp16(Tensor X, __torch__.torch.classes.quantized.LinearPackedParamsBase W_prepack) -> "
    "Tensor Y",
    "quantized::linear_unpack_fp16(__torch__.torch.classes.quantized.LinearPackedParamsBase W_prepack) -> "
    "(Tensor W_origin, Tensor? B_origin)",
)
ONEDNN = (
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"
)


def schema(name: str) -> str:
    namespace, _, operator = name.partition("::")
    return str(getattr(getattr(torch.ops, namespace), operator).default._schema)


@pytest.mark.parametrize("expected", SCHEMAS, ids=lambda text: text.partition("(")[0])
def test_an_operator_has_its_signature(expected: str) -> None:
    assert schema(expected.partition("(")[0]) == expected


@pytest.mark.skipif(
    not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()),
    reason="this torch lacks MKL or oneDNN",
)
def test_onednn_has_its_linear_layer() -> None:
    assert schema("mkldnn::_linear_pointwise") == ONEDNN
    assert torch_private.HAS_ONEDNN_LINEAR
    x, weight, bias = torch.randn(3, 5), torch.randn(7, 5), torch.randn(7)
    torch.testing.assert_close(torch_private.onednn_linear(x, weight, bias), F.linear(x, weight, bias))
    torch.testing.assert_close(torch_private.onednn_linear(x, weight, None), F.linear(x, weight))


def test_the_gradients_are_autograds() -> None:
    torch.manual_seed(1)
    x, scale, shift = (torch.randn(n, requires_grad=True) for n in ((4, 6), (6,), (6,)))
    g = torch.randn(4, 6)
    output, mean, rstd = torch_private.layer_norm(x.detach(), scale.detach(), shift.detach(), 1e-5)
    expected = F.layer_norm(x, (6,), scale, shift, 1e-5)
    torch.testing.assert_close(output, expected.detach())
    made = torch_private.layer_norm_backward(g, x.detach(), mean, rstd, scale.detach(), shift.detach())
    torch.testing.assert_close(made, torch.autograd.grad(expected, (x, scale, shift), g))

    p = torch.softmax(x, -1)
    torch.testing.assert_close(torch_private.softmax_backward(g, p.detach()), torch.autograd.grad(p, x, g)[0])

    q, k, v = (torch.randn(2, 2, 8, 4, requires_grad=True) for _ in range(3))
    g = torch.randn(2, 2, 8, 4)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    plain = [t.detach() for t in (q, k, v)]
    output, sums = torch_private.flash_attention(*plain)
    torch.testing.assert_close(output, expected.detach())
    gradients = torch_private.flash_attention_backward(g, *plain, output, sums)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, (q, k, v), g))


def test_bytes_are_packed_with_scale_and_minimum() -> None:
    rows = torch.randn(6, 16)
    packed = torch_private.pack_bytes(rows)
    assert packed.shape == (6, 16 + 8) and packed.dtype == torch.uint8
    wide = torch_private.unpack_bytes(packed)
    torch.testing.assert_close(packed[:, 16:].view(torch.float32)[:, 1], rows.amin(1))
    assert ((wide - rows).abs().amax(1) <= (rows.amax(1) - rows.amin(1)) / 255).all()
    ids, bags, weights = torch.arange(6, dtype=torch.int32), torch.tensor([0, 2], dtype=torch.int32), torch.randn(6)
    made = torch_private.byte_bags(packed, ids, bags, False, 0, False, weights)
    products = weights[:, None] * wide
    torch.testing.assert_close(made, torch.stack((products[:2].sum(0), products[2:].sum(0))))


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="this torch lacks fbgemm")
def test_fbgemm_multiplies_by_half_precision_weights() -> None:
    weight, x = torch.randn(20, 16), torch.randn(3, 16)
    packed = torch_private.fbgemm_half(weight)
    torch.testing.assert_close(torch_private.fbgemm_half_weight(packed), weight.half().float())
    torch.testing.assert_close(torch_private.fbgemm_half_linear(x, packed), x @ weight.half().float().T)


@pytest.mark.parametrize("name, settings", [("AdamW", {"fused": True}), ("AdamW", {}), ("SGD", {}), ("Muon", {})])
def test_the_optimizers_are_torchs(name: str, settings: dict[str, bool]) -> None:
    torch.manual_seed(1)
    ours, theirs = (torch.nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    mine, plain = getattr(torch_private, name)([ours], **settings), getattr(torch.optim, name)([theirs], **settings)
    for _ in range(3):
        g = torch.randn(6, 4)
        for optimizer, parameter in ((mine, ours), (plain, theirs)):
            optimizer.zero_grad()
            parameter.grad = g.clone()
            optimizer.step()
        assert torch.equal(ours, theirs) and not torch.equal(ours, torch.ones(6, 4))
        plain.load_state_dict(copy.deepcopy(mine.state_dict()))


def test_muons_update_is_the_step_that_torchs_muon_takes() -> None:
    torch.manual_seed(1)
    parameter, g = torch.nn.Parameter(torch.zeros(6, 4)), torch.randn(6, 4)
    muon = torch.optim.Muon([parameter], lr=0.1, weight_decay=0.0, momentum=0.0, adjust_lr_fn="match_rms_adamw")
    parameter.grad = g.clone()
    muon.step()
    update, rate = torch_private.muon_update(g, muon.param_groups[0])
    assert torch.equal(parameter.detach(), torch.zeros(6, 4).add_(update, alpha=-rate))


def test_torchs_own_optimizers_still_import_its_compiler() -> None:
    """If they no longer do, use them instead."""
    code = "import sys, torch\ntorch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])\nprint('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


@pytest.mark.skipif(platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(), reason="Linux on x86 only")
def test_torch_tells_whether_the_processor_multiplies_in_bfloat16() -> None:
    assert not inspect.signature(torch.cpu._is_avx512_bf16_supported).parameters
    allowed = "AVX512" in torch.backends.cpu.get_cpu_capability()  # ATEN_CPU_CAPABILITY can forbid it
    flags = Path("/proc/cpuinfo").read_text()
    assert torch_private.multiplies_in_bfloat16() == (allowed and "avx512_bf16" in flags)
    assert torch_private.has_amx() == ("amx_tile" in flags)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_onednn_multiplies_in_a_dtype_or_it_is_known_that_it_cannot(dtype: torch.dtype) -> None:
    """Where oneDNN has no bf16 product, as on a CPU with AVX2 alone, calling it raises."""
    x, weight = torch.randn(3, 8).to(dtype), torch.randn(5, 8).to(dtype)
    if torch_private.onednn_multiplies_in(dtype):
        torch.testing.assert_close(torch_private.onednn_linear(x, weight, None), x @ weight.T, rtol=2e-2, atol=2e-2)
    elif torch_private.HAS_ONEDNN_LINEAR:
        with pytest.raises(RuntimeError):
            torch_private.onednn_linear(x, weight, None)


def test_the_process_group_has_a_store() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        store = torch_private.default_store()
        assert not store.check(["failed"])
        store.set("failed", "process 0")
        assert store.check(["failed"]) and store.get("failed") == b"process 0"
    finally:
        dist.destroy_process_group()
