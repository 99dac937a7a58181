"""nanochat's architecture of March 2026 (14 March to July 2026, the newest that was read), which transformers does not
have.

    x₀ = norm(embedding), plus a gated share of the token before (smear)
    each layer: x ← λ x + λ₀ x₀, then attention and MLP, each of norm(x), added to x
    logits = 15 tanh(head(norm(x − β x_half)) ÷ 15); x_half: after the layer in the middle

norm is RMSNorm without weights; the MLP's activation is relu². Attention: rotary positions of base 100,000, then norm,
then 1.2 for queries and keys; a window in some layers; in every second layer the values get a gated embedding of the
token. Letters: T new tokens, P cached ones, C the width, D a head's.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.llm.formats.nanochat_meta import GATE, SMEAR, NanoChatMeta
from tui_llm.llm.model import device

_BASE, _SHARPER, _CAP = 100_000.0, 1.2, 15.0


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


class NanoChatModel(nn.Module):
    """The weights under nanochat's names, and a pass over one row of text that extends a cache of keys and values."""

    def __init__(self, meta: NanoChatMeta, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.meta = meta
        self.config = SimpleNamespace(model_type="nanochat")  # as transformers' models have it
        self.wte = nn.Embedding.from_pretrained(tensors["transformer.wte.weight"])
        self.lm_head = nn.Linear(meta.width, meta.vocabulary, bias=False, device="meta")
        self.lm_head.weight = nn.Parameter(tensors["lm_head.weight"], requires_grad=False)
        self.windows = meta.windows()
        self._weights = {name: tensor for name, tensor in tensors.items() if name not in ("transformer.wte.weight", "lm_head.weight")}  # fmt: skip
        steps = torch.arange(0, meta.head_width, 2, dtype=torch.float32) / meta.head_width
        self.frequencies = (1.0 / _BASE**steps).to(self.wte.weight.device)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.wte

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def numbers(self) -> int:
        return sum(tensor.numel() for tensor in (*self._weights.values(), self.wte.weight, self.lm_head.weight))

    def forward(self, ids: Tensor, previous: int | None, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        """ids (T,) after the tokens in `cache`, of which `previous` is the last → features (T, C). Replaces the entries
        of `cache`, keys and values (kv heads, P + T, D) for each layer."""
        w = self._weights
        past = cache[0][0].size(1)
        x = _norm(self.wte(ids))
        before = x[:-1] if previous is None else torch.cat((_norm(self.wte(ids.new_tensor([previous]))), x[:-1]))
        rest = x if previous is not None else x[1:]  # the first token of a text has none before it
        gate = w["smear_lambda"] * torch.sigmoid(F.linear(rest[:, :SMEAR], w["smear_gate.weight"]))
        x = torch.cat((x[: len(x) - len(rest)], rest + gate * before))
        first, half = x, x
        for layer in range(self.meta.layers):
            x = w["resid_lambdas"][layer] * x + w["x0_lambdas"][layer] * first
            x = x + self._attention(layer, _norm(x), ids, past, cache)
            up = F.relu(F.linear(_norm(x), w[f"transformer.h.{layer}.mlp.c_fc.weight"])).square()
            x = x + F.linear(up, w[f"transformer.h.{layer}.mlp.c_proj.weight"])
            if layer == self.meta.layers // 2:
                half = x
        return _norm(x - w["backout_lambda"] * half)

    def _attention(self, layer: int, x: Tensor, ids: Tensor, past: int, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        w, here, meta, T = self._weights, f"transformer.h.{layer}.attn.", self.meta, len(ids)
        q, k, v = (
            F.linear(x, w[f"{here}c_{name}.weight"]).view(T, -1, meta.head_width).transpose(0, 1) for name in "qkv"
        )  # (heads, T, D)
        if (embedding := w.get(f"value_embeds.{layer}.weight")) is not None:
            share = 3 * torch.sigmoid(F.linear(x[:, :GATE], w[f"{here}ve_gate.weight"]))  # (T, kv heads)
            own = F.embedding(ids, embedding).view(T, -1, meta.head_width)
            v = v + (share[..., None] * own).transpose(0, 1)
        q, k = (_SHARPER * _norm(self._rotated(part, past)) for part in (q, k))
        k, v = (torch.cat(pair, 1) for pair in zip(cache[layer], (k, v), strict=True))
        cache[layer] = k, v
        at = torch.arange(past, past + T, device=x.device)[:, None] - torch.arange(past + T, device=x.device)
        seen = (at >= 0) & (at <= self.windows[layer])
        groups = meta.heads // meta.kv_heads
        k, v = (part.repeat_interleave(groups, 0) for part in (k, v))
        y = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=seen)[0]
        return F.linear(y.transpose(0, 1).reshape(T, -1), w[f"{here}c_proj.weight"])

    def _rotated(self, x: Tensor, past: int) -> Tensor:
        """x (heads, T, D), its halves rotated by the negative angle of each position."""
        # Not a table of the whole context: nothing in the file bounds the context that it states.
        positions = torch.arange(past, past + x.size(1), dtype=torch.float32, device=x.device)
        angles = torch.outer(positions, self.frequencies)
        cos, sin = angles.cos(), angles.sin()
        left, right = x.chunk(2, -1)
        return torch.cat((left * cos + right * sin, right * cos - left * sin), -1)


class NanoChatPredictor:
    """Implements `predictor.Predictor`, with a KV cache."""

    def __init__(self, model: NanoChatModel) -> None:
        self.model = model
        meta = model.meta
        self.parameters = model.numbers()
        self.layers, self.heads, self.width, self.context = meta.layers, meta.heads, meta.width, meta.context
        self.vocabulary, self.kept = meta.vocabulary, meta.width
        self._ids: list[int] = []
        empty = model.wte.weight.new_zeros(meta.kv_heads, 0, meta.head_width)
        self._cache = [(empty, empty)] * meta.layers

    def run(self, ids: Sequence[int]) -> Tensor:
        if len(self._ids) + len(ids) > self.context:
            raise ValueError(f"{len(self._ids) + len(ids)} tokens in a context of {self.context}")
        with torch.inference_mode(), device.threads(self.parameters * len(ids)):
            cache = list(self._cache)
            tokens = torch.tensor(list(ids), device=self.model.wte.weight.device)
            features = self.model(tokens, self._ids[-1] if self._ids else None, cache)
            self._cache = cache
            self._ids += ids
            made: Tensor = features.float().cpu()
            return made

    def crop(self, length: int) -> None:
        length = max(0, length)
        if length < len(self._ids):
            self._cache = [(keys[:, :length], values[:, :length]) for keys, values in self._cache]
            del self._ids[length:]

    def head(self, features: Any, size: int) -> Tensor:
        features = torch.as_tensor(features)
        with torch.inference_mode(), device.threads(features.numel() * size):
            weight = self.model.lm_head.weight
            logits = F.linear(features.to(weight.device, weight.dtype), weight)[:, :size].float()
            return (_CAP * torch.tanh(logits / _CAP)).cpu()

    def embedding(self) -> Tensor:
        return self.model.wte.weight
