"""GPT-2: token ids in, logits out.

    ids ─▶ token embedding + position embedding ─▶ N × block ─▶ LayerNorm ─▶ head (tied to the embedding) ─▶ logits

    block(x) = x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x))      (pre-LayerNorm)

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019). What is different in today's models is a
switch of the config, off by default; `switches.py` says what each does and where it is from. Letters in the comments: B
rows in a batch, T tokens in a row, P tokens already in the cache, C the width, H heads, K ≤ H key and value heads,
D = C ÷ H, V the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.llm.model import fast
from tui_llm.llm.model.kv_cache import KVCache as KVCache
from tui_llm.llm.model.kv_cache import attention_mask
from tui_llm.llm.model.shape import GPTConfig

Rotation = tuple[
    Tensor, Tensor
]  # cos and sin, (T, D) each, of the T tokens that a block gets; None without rotary positions


class Rotary(nn.Module):
    """Rotary positions: pair i of the numbers of a query or key, i and i + D/2, is turned by position ÷ θ^(2i ÷ D), so
    that q · k depends on the distance of the two tokens. NanoChat's layout turns the other way."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.size, self.base, self.sign = config.size, config.rope, -1 if config.qk_norm else 1

    def forward(self, where: Tensor) -> Rotation:
        """Positions (T,) → cos and sin."""
        powers = torch.arange(0, self.size, 2, device=where.device).float() / self.size
        angles = where.float()[:, None] / self.base**powers  # (T, D/2)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), self.sign * angles.sin()


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys (…, T, D), each pair turned."""
    cos, sin = (one.to(x.dtype) for one in rotation)
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


class Attention(nn.Module):
    """Causal multi-head self-attention: softmax(q · k ÷ √D) weights the values of the token and of those before it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.key_heads, self.size = layer, config.heads, config.key_heads, config.size
        self.qk_norm, self.epsilon, self.window = config.qk_norm, config.epsilon, config.window
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.width, config.projected, bias=config.biased)
        self.out = nn.Linear(config.width, config.width, bias=config.biased)

    def split(self, qkv: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """The output of `qkv`, (…, T, (H + 2 K) D) → queries (…, H, T, D), keys and values (…, K, T, D)."""
        wide, narrow = self.heads * self.size, self.key_heads * self.size
        q, k, v = (
            part.unflatten(-1, (-1, self.size)).transpose(-2, -3) for part in qkv.split((wide, narrow, narrow), dim=-1)
        )
        if rotation is not None:
            q, k = rotated(q, rotation), rotated(k, rotation)
        if self.qk_norm:
            q, k = (F.rms_norm(one, (self.size,), eps=self.epsilon) for one in (q, k))
        return q, k, v

    def shared(self, x: Tensor) -> Tensor:
        """Keys or values (…, K, T, D) → those of each query head, (…, H, T, D)."""
        return x if self.key_heads == self.heads else x.repeat_interleave(self.heads // self.key_heads, dim=-3)

    def forward(self, x: Tensor, cache: KVCache | None = None, rotation: Rotation | None = None) -> Tensor:
        """x (B, T, C) → (B, T, C). With a cache (B = 1), also attends to its P tokens and caches the new ones."""
        B, T, C = x.shape
        q, k, v = self.split(self.qkv(x), rotation)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # (1, K, P + T, D)
        mask = cache.mask(T, self.window) if cache is not None else attention_mask(T, 0, self.window, x.device)
        k, v = self.shared(k), self.shared(v)
        y = F.scaled_dot_product_attention(
            q, k, v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and T > 1,
        )  # fmt: skip
        y = y.transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.out(y), self.dropout, self.training)


def capped(logits: Tensor, cap: float) -> Tensor:
    """The soft cap, cap · tanh(logits ÷ cap); the logits themselves if `cap` is 0."""
    return cap * torch.tanh(logits / cap) if cap else logits


class MLP(nn.Module):
    """Position-wise feed-forward: linear C → hidden, GELU (GPT-2's tanh approximation) or what the config says, linear
    hidden → C."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.activation = activation(config)
        self.up = nn.Linear(config.width, config.hidden, bias=config.biased)
        self.down = nn.Linear(config.hidden, config.width, bias=config.biased)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) → (B, T, C)."""
        return F.dropout(self.down(self.activation(self.up(x))), self.dropout, self.training)


def activation(config: GPTConfig) -> Callable[[Tensor], Tensor]:
    """What the MLP applies to its hidden layer."""
    if config.relu2:
        return lambda x: F.relu(x).square()  # ReLU²
    return partial(F.gelu, approximate="none" if config.exact_gelu else "tanh")


def new_norm(config: GPTConfig) -> nn.LayerNorm | nn.RMSNorm:
    """The norm before a block's attention and MLP, and before the head."""
    if config.rmsnorm:
        return nn.RMSNorm(config.width, eps=config.epsilon, elementwise_affine=config.gains)
    return nn.LayerNorm(config.width, eps=config.epsilon)


class Block(nn.Module):
    """Pre-LayerNorm block: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.fused = fast.fits(config)
        self.norm1 = new_norm(config)
        self.attention = Attention(config, layer)
        self.norm2 = new_norm(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None = None, products: torch.dtype | None = None,
                rotation: Rotation | None = None) -> Tensor:  # fmt: skip
        """x (B, T, C) → (B, T, C). `products` selects matrix products in that dtype, fused where `fast.block` computes this
        model."""
        if products is not None and self.fused:
            return fast.block(self, x, products)
        with fast.autocast(products):
            x = x + self.attention(self.norm1(x), cache, rotation)
            return x + self.mlp(self.norm2(x))


def _embedding(count: int, width: int) -> nn.Embedding:
    """An embedding; on the meta device, whose weights are read later, without its initialization: `normal_` is written
    in Python there and imports torch._dynamo."""
    if torch.get_default_device().type == "meta":
        return nn.Embedding.from_pretrained(torch.empty(count, width), freeze=False)
    return nn.Embedding(count, width)


class GPT(nn.Module):
    """GPT-2 of any size. Weights are initialized as GPT-2's: normal with σ = 0.02, scaled by 1 ÷ √(2 × layers) in the
    layers that write to the residual stream, so that its variance does not grow with depth."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.used = config.vocabulary  # number of ids that are tokens; the embedding's further rows are padding
        self.tokens = _embedding(config.vocabulary, config.width)
        self.positions: Any = Rotary(config) if config.rope else _embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = new_norm(config)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.head.weight = self.tokens.weight
        # An attribute, so that `torch.compile` can be kept out of it. As a decorator in fast.py, `torch.compiler.disable`
        # would import torch._dynamo, which takes as long as torch itself.
        self.head_losses = fast.head_losses
        if not self.tokens.weight.is_meta:
            self.reset()

    def reset(self) -> None:
        """Initialize the weights randomly, see the class."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.constant_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0)
            else:
                writes = name.endswith(("attention.out.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.layers) if writes else 0.02)

    @torch.no_grad()
    def zero_outputs(self) -> None:
        """Set the layers that write to the residual stream to 0, and an untied head: each block is then the identity."""
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.down.weight")) or name == "head.weight":
                parameter.zero_()

    def _first(self) -> Tensor:
        """A parameter, or where all are in fewer bits (`fast_decode.prepare`) a buffer."""
        return next(chain(self.parameters(), self.buffers()))

    @property
    def device(self) -> torch.device:
        return self._first().device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of what it computes: float32, unless it was converted."""
        return next((one.dtype for one in self.parameters()), torch.float32)

    def embed(self, ids: Tensor, where: Tensor) -> tuple[Tensor, Rotation | None]:
        """ids (B, T) at the positions `where` (T,) → the residual stream before the first block, (B, T, C), and the
        rotation of queries and keys, if positions are rotary."""
        positions = self.positions(where)  # first: a hook on the tokens' embedding may depend on where they are
        x = self.tokens(ids)
        if not self.config.rope:
            return x + positions, None
        if self.config.qk_norm:  # NanoChat's layout normalizes the embedding
            x = F.rms_norm(x, (self.config.width,), eps=self.config.epsilon)
        return x, positions

    def features(self, ids: Tensor, cache: KVCache | None = None, products: torch.dtype | None = None) -> Tensor:
        """ids (B, T) → features (B, T, C), the input of the output head: the residual stream after the final LayerNorm.

        With a cache (B = 1), `ids` are the new tokens only; they follow the cached ones and are added to the cache.
        `products` selects the fused path for training, with matrix products in that dtype; use it without cache and
        dropout. Raises ValueError if the tokens exceed the context.
        """
        T = ids.size(1)
        end = cache.end(T) if cache is not None else T
        if end > self.config.context:
            raise ValueError(f"{end} tokens in a context of {self.config.context}")
        where = cache.positions(T) if cache is not None else torch.arange(T, device=ids.device)
        x, rotation = self.embed(ids, where)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x, cache, products, rotation)
        if cache is not None:
            cache.length += T  # after the blocks, which all write at the same position
        return self.norm(x)

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        last: int | None = None,
        *,
        targets: Tensor | None = None,
        products: torch.dtype | None = None,
    ) -> Tensor:
        """ids (B, T) → logits (B, T, V): at each position, for the next token. `last` returns the logits of the last
        `last` positions only, (B, last, V); with `targets` it returns the `loss` instead."""
        if targets is not None:
            return self.loss(ids, targets, products)
        x = self.features(ids, cache)
        return self.logits(x if last is None else x[:, -last:])

    def logits(self, features: Tensor) -> Tensor:
        """Features (…, C) → logits (…, V): the output head, soft-capped if the config says so."""
        return capped(self.head(features), self.config.softcap)

    def loss(self, inputs: Tensor, targets: Tensor, products: torch.dtype | None = None) -> Tensor:
        """Mean cross-entropy in nats per token; inputs and targets (B, T), targets shifted by one. Ids from `used` on
        are padding and excluded from the softmax. `products` as for `features`."""
        return self.losses(inputs, targets, products)[0]

    def losses(self, inputs: Tensor, targets: Tensor, products: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """The `loss`, and the mean loss of each row (B,), which has no gradient."""
        x = self.features(inputs, products=products)
        if products is not None:
            weight = self.head.weight
            weight = weight[: self.used] if self.used < len(weight) else weight
            mean, each = self.head_losses(x, weight, targets, products, cap=self.config.softcap)
            return mean, each.mean(1)
        logits = self.logits(x)
        if self.used < logits.size(-1):
            logits = logits[..., : self.used]
        # F.cross_entropy in its two parts: the losses of single targets are read from the first.
        logs = F.log_softmax(logits.float().flatten(0, 1), -1)  # (B · T, V)
        mean = F.nll_loss(logs, targets.flatten())
        return mean, -logs.detach().gather(1, targets.reshape(-1, 1)).view(targets.shape).mean(1)

    def matrices(self) -> list[nn.Parameter]:
        """The blocks' weight matrices, for optimizers such as Muon that orthogonalize the update. Not the embeddings
        and the head, whose rows belong to single tokens."""
        return [p for p in self.blocks.parameters() if p.dim() == 2]

    def decay_groups(
        self, weight_decay: float, *, without: list[nn.Parameter] | None = None
    ) -> list[dict[str, object]]:
        """Parameter groups for AdamW: matrices and embeddings get weight decay, biases and LayerNorms don't. Parameters
        in `without` are left out."""
        left_out = {id(p) for p in without or ()}
        ours = [p for p in self.parameters() if id(p) not in left_out]
        return [
            {"params": [p for p in ours if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in ours if p.dim() < 2], "weight_decay": 0.0},
        ]

    def weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Each parameter once, by name (a tied head under the embedding's name)."""
        yield from self.named_parameters()
