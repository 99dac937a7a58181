"""GPT-2: token ids in, logits out.

    ids ─▶ token embedding + position embedding ─▶ N × block ─▶ LayerNorm ─▶ head (tied to the embedding) ─▶ logits

    block(x) = x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x))      (pre-LayerNorm)

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019). Letters in the comments: B rows in a
batch, T tokens in a row, P tokens already in the cache, C the width, H heads, D = C ÷ H, V the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.llm.model import fast
from tui_llm.llm.model.shape import GPTConfig


class KVCache:
    """The keys and values of the tokens processed so far, so that only new tokens have to be run.

    Allocates space for one row of `context` tokens: 2 × layers × context × C numbers.
    """

    def __init__(
        self, config: GPTConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        shape = (
            config.layers,
            1,
            config.heads,
            config.context,
            config.width // config.heads,
        )  # (layers, 1, H, context, D)
        # Not cleared: what is not written takes no memory, and what was not written is never read.
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0  # P: number of tokens in the cache

    def crop(self, length: int) -> None:
        """Discard all but the first `length` tokens. The memory is not cleared; later tokens overwrite it."""
        self.length = min(self.length, length)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values (1, H, T, D) after the old ones; returns all of them, each (1, H, P + T, D)."""
        end = self.length + keys.size(2)
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def end(self, count: int) -> int:
        """The number of positions in use after adding `count` tokens."""
        return self.length + count

    def positions(self, count: int) -> Tensor:
        """The positions of the next `count` tokens, (T,)."""
        return torch.arange(self.length, self.length + count, device=self.keys.device)

    def mask(self, count: int) -> Tensor | None:
        """The attention mask of the next `count` tokens, bool (T, P + T): True for all P cached tokens and, among the
        new ones, for those up to the token itself. None if it would be all True or if the cache is empty (plain causal
        attention)."""
        if not self.length or count == 1:
            return None
        return torch.ones(count, self.length + count, dtype=torch.bool, device=self.keys.device).tril(self.length)


class Attention(nn.Module):
    """Causal multi-head self-attention: softmax(q · k ÷ √D) weights the values of the token and of those before it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """x (B, T, C) → (B, T, C). With a cache (B = 1), also attends to its P tokens and caches the new ones."""
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.heads, C // self.heads).transpose(1, 2)  # (B, H, T, D)
            for part in self.qkv(x).split(C, dim=2)
        )
        mask = None
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # (1, H, P + T, D)
            mask = cache.mask(T)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and T > 1,
        )
        y = y.transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.out(y), self.dropout, self.training)


class MLP(nn.Module):
    """Position-wise feed-forward: linear C → hidden, GELU (GPT-2's tanh approximation, unless the config says
    otherwise), linear hidden → C."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.approximate = "none" if config.exact_gelu else "tanh"
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) → (B, T, C)."""
        return F.dropout(self.down(F.gelu(self.up(x), approximate=self.approximate)), self.dropout, self.training)


class Block(nn.Module):
    """Pre-LayerNorm block: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.epsilon)
        self.attention = Attention(config, layer)
        self.norm2 = nn.LayerNorm(config.width, eps=config.epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None = None, products: torch.dtype | None = None) -> Tensor:
        """x (B, T, C) → (B, T, C). `products` selects `fast.block`, with matrix products in that dtype; it has no exact
        GELU."""
        if products is not None and self.mlp.approximate == "tanh":
            return fast.block(self, x, products)
        x = x + self.attention(self.norm1(x), cache)
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
        self.positions = _embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.head.weight = self.tokens.weight
        # An attribute, so that `torch.compile` can be kept out of it. As a decorator in fast.py, `torch.compiler.disable`
        # would import torch._dynamo, which takes as long as torch itself.
        self.head_loss = fast.head_loss
        if not self.positions.weight.is_meta:
            self.reset()

    def reset(self) -> None:
        """Initialize the weights randomly, see the class."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.constant_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0)
            else:
                writes = name.endswith(("attention.out.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.layers) if writes else 0.02)

    @property
    def device(self) -> torch.device:
        return self.positions.weight.device

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
        x = self.tokens(ids) + self.positions(where)  # (B, T, C)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x, cache, products)
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
        return self.head(x if last is None else x[:, -last:])

    def loss(self, inputs: Tensor, targets: Tensor, products: torch.dtype | None = None) -> Tensor:
        """Mean cross-entropy in nats per token; inputs and targets (B, T), targets shifted by one. Ids from `used` on
        are padding and excluded from the softmax. `products` as for `features`."""
        x = self.features(inputs, products=products)
        if products is not None:
            weight = self.head.weight
            return self.head_loss(x, weight[: self.used] if self.used < len(weight) else weight, targets, products)
        logits = self.head(x)
        if self.used < logits.size(-1):
            logits = logits[..., : self.used]
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

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
