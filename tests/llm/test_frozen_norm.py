"""Which norm the final one is, and what it is with σ frozen, against transformers' norms of Llama, Gemma and GPT-2."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tui_llm.common.errors import UserError
from tui_llm.llm.model.attribution import frozen

WIDTH = 512
SHAPE = {
    "vocab_size": 8,
    "hidden_size": WIDTH,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def llama() -> Any:
    return transformers.LlamaModel(transformers.LlamaConfig(**SHAPE)).norm


def gemma() -> Any:
    norm = transformers.GemmaModel(transformers.GemmaConfig(num_key_value_heads=1, head_dim=8, **SHAPE)).norm
    norm.weight.data.fill_(40.0)  # its gain is 41: nearly the one of an RMSNorm with this weight
    return norm


def gpt2() -> Any:
    norm = transformers.GPT2Model(transformers.GPT2Config(vocab_size=8, n_embd=WIDTH, n_layer=1, n_head=2)).ln_f
    norm.bias.data = torch.randn(WIDTH)
    return norm


def streams(dtype: torch.dtype) -> list[Tensor]:
    """From a mean of 0, at which LayerNorm and RMSNorm agree, to one that is larger than the deviation from it."""
    plain = torch.randn(WIDTH, dtype=torch.float64)
    return [(plain - plain.mean() + mean).to(dtype).double() for mean in (0.0, 1e-3, 0.01, 0.1, 0.5, 3.0)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("make", [llama, gemma, gpt2])
def test_the_kind_is_the_models_at_every_position(make: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    norm = make()
    if make is not gemma:
        norm.weight.data = torch.rand(WIDTH) + 0.5
    norm = norm.to(dtype)
    loose = 1e-5 if dtype == torch.float32 else 0.02
    for stream in streams(dtype):
        found = frozen(norm, stream)
        assert found.centred == isinstance(norm, nn.LayerNorm)
        # σ is frozen: the norm itself computes the same for another vector, as long as its σ is that of the stream.
        other = torch.randn(WIDTH, dtype=torch.float64) + 0.7
        spread = [one - one.mean() if found.centred else one for one in (other, stream)]
        other *= spread[1].norm() / spread[0].norm()
        row = torch.eye(WIDTH, dtype=torch.float64)  # of an output head that passes each number on
        made = found.directions(row) @ other + (0 if found.bias is None else found.bias)
        wanted = norm(other.to(dtype)).detach().double()
        assert float((made - wanted).norm() / wanted.norm()) < loose


def test_gemmas_gain_is_1_more_than_its_weight() -> None:
    norm = gemma().to(torch.bfloat16)
    for stream in streams(torch.bfloat16):
        torch.testing.assert_close(frozen(norm, stream).gain, torch.full((WIDTH,), 41.0, dtype=torch.float64))


def test_what_fits_at_one_position_only_is_no_norm() -> None:
    class Clipped(nn.Module):
        """An RMSNorm of what it clips first: at small values it is one."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            x = x.clamp(-1, 1)
            return self.weight * x / x.square().mean(-1, keepdim=True).sqrt()

    for factor in (0.01, 1.0):
        with pytest.raises(UserError, match="neither a LayerNorm nor an RMSNorm"):
            frozen(Clipped(), factor * torch.randn(WIDTH, dtype=torch.float64))
