"""Fused forward and backward for training on a CPU: same results as `model.py` up to rounding, in fewer and cheaper
passes.

    block(x): a whole transformer block as one autograd function;  head_loss(x): output head and loss fused

Why it is faster, each measured (dev/LOG.md):

- Matrix products are in `dtype` (bfloat16 if the CPU multiplies in it), on weights that are cast once per step. Master
  weights, gradients, the residual stream, LayerNorm, softmax sums and the loss stay float32.
- A block is a single autograd function: no repeated casts or copies, and less Python overhead for small models.
- Attention over short rows uses batched matrix products of query blocks, which there beat the flash kernels.
- GELU's tanh is computed as a sigmoid, at a fifth of the cost: ½ (1 + tanh z) = σ(2 z). Its derivative is computed in
  the same loop, piece by piece, so that intermediate values stay in the CPU's cache.
- Output head and loss run over chunks of rows, with gradients computed in the forward pass. The logits of a whole
  batch, the largest tensor if the vocabulary is large, are never materialized.

No dropout; first-order gradients only. Letters as in `model.py`; N = B · T rows.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tui_llm.llm.model import torch_private
from tui_llm.llm.model.shape import GPTConfig

SHORT = 1024  # up to this many tokens, attention scores are stored, which is faster than SDPA
CHUNK = 1 << 25  # logits materialized at a time
PIECE = 1 << 19  # elements per GELU or softmax pass: the intermediate values fit into a core's cache
MANY = 2048  # rows from which oneDNN's products in float32 are faster than MKL's; in bfloat16 they always are
QUERIES = 64  # minimum size of a query block (and at least a quarter of the row)


def fits(config: GPTConfig) -> bool:
    """Whether `block` computes the blocks of such a model, dropout aside."""
    return not config.exact_gelu and config.plain


def autocast(products: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Matrix products in that dtype, for a block that is not fused."""
    return torch.autocast("cpu", products) if products == torch.bfloat16 else contextlib.nullcontext()


def block(self: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    """`Block.forward`: x (B, T, C) float32 → (B, T, C) float32, with matrix products in `dtype`."""
    return _Block.apply(x.contiguous(), self.attention.heads, self.norm1.eps, dtype, *linears_and_norms(self))


class BlockWeights(NamedTuple):
    """A block's weights: matrices (out, in) and biases in the dtype of the products, LayerNorms' in float32."""

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    scale1: Tensor
    shift1: Tensor
    scale2: Tensor
    shift2: Tensor


def linears_and_norms(block: Any) -> list[Tensor]:
    """A block's parameters in the order of `BlockWeights`."""
    parts = block.attention.qkv, block.attention.out, block.mlp.up, block.mlp.down, block.norm1, block.norm2
    return [p for part in parts for p in (part.weight, part.bias)]


def block_forward(
    rows: Tensor, w: BlockWeights, shape: tuple[int, int, int], epsilon: float
) -> tuple[Tensor, list[Tensor]]:
    """rows (N, C) float32, shape (B, T, H) → (N, C) float32, and what `block_backward` needs."""
    dtype = w.qkv.dtype
    h1, *stats1 = torch_private.layer_norm(rows, w.scale1, w.shift1, epsilon)
    h1 = h1.to(dtype)
    qkv = _linear(h1, w.qkv, w.qkv_bias)
    y, attended = _attend(qkv, shape)
    middle = _added(_linear(y, w.out, w.out_bias), rows)
    h2, *stats2 = torch_private.layer_norm(middle, w.scale2, w.shift2, epsilon)
    h2 = h2.to(dtype)
    inner, slope = _gelu(_linear(h2, w.up, w.up_bias))
    x = _added(_linear(inner, w.down, w.down_bias), middle)
    return x, [rows, *stats1, h1, y, middle, *stats2, h2, slope, inner, *attended]


def block_backward(g: Tensor, w: BlockWeights, shape: tuple[int, int, int], kept: list[Tensor],
                   made: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """The gradient (N, C) of the block's input, given that of its output, g (N, C), and the LayerNorms' gradients.

    The gradients of the first eight of `BlockWeights` are written into `made`, in the products' dtype.
    """
    rows, mean1, rstd1, h1, y, middle, mean2, rstd2, h2, slope, inner, *attended = kept
    dtype = h1.dtype
    low = g.to(dtype)
    _weight_gradients(low, inner, *made[6:8])
    low = _linear(low, w.down.t())
    low *= slope
    _weight_gradients(low, h2, *made[4:6])
    dx, *norm2 = torch_private.layer_norm_backward(
        _linear(low, w.up.t()).float(), middle, mean2, rstd2, w.scale2, w.shift2
    )
    g = dx.add_(g)  # the gradient through the residual connection
    low = g.to(dtype)
    _weight_gradients(low, y, *made[2:4])
    low = _attend_backward(_linear(low, w.out.t()), shape, attended)
    _weight_gradients(low, h1, *made[:2])
    dx, *norm1 = torch_private.layer_norm_backward(
        _linear(low, w.qkv.t()).float(), rows, mean1, rstd1, w.scale1, w.shift1
    )
    return dx.add_(g), [*norm1, *norm2]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weightᵀ + bias, for x (N, in) and weight (out, in)."""
    faster = x.dtype != torch.float32 or len(x) >= MANY
    if faster and x.device.type == "cpu" and torch_private.onednn_multiplies_in(x.dtype):
        return torch_private.onednn_linear(x, weight, bias)
    return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())


def _added(low: Tensor, rows: Tensor) -> Tensor:
    """rows + low in float32; a cast and an addition are faster than an addition of two dtypes."""
    return rows + low if low.dtype == rows.dtype else low.float().add_(rows)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int, epsilon: float, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        weights = BlockWeights(*(p.to(dtype) for p in parameters[:8]), *parameters[8:])
        ctx.shape = x.size(0), x.size(1), heads
        made, kept = block_forward(x.view(-1, x.size(2)), weights, ctx.shape, epsilon)
        ctx.save_for_backward(*weights, *kept)
        return made.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        weights = BlockWeights(*ctx.saved_tensors[:12])
        made = [torch.empty_like(weight) for weight in weights[:8]]
        g = gradients[0].reshape(-1, gradients[0].size(2))
        dx, norms = block_backward(g, weights, ctx.shape, list(ctx.saved_tensors[12:]), made)
        return dx.view_as(gradients[0]), None, None, None, *(one.float() for one in made), *norms


def _weight_gradients(g: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Writes the gradients of a linear layer's weight and bias, from its output gradient g (N, ·) and its input h (N,
    ·)."""
    torch.mm(g.t(), h, out=weight)
    if g.numel() < PIECE:
        torch.sum(g, 0, out=bias)
    else:  # outside the cache, a matrix product sums faster
        torch.mm(_ones(len(g), g.dtype, g.device), g, out=bias.view(1, -1))


@lru_cache(8)
def _ones(N: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones(1, N, dtype=dtype, device=device)


def _gelu(u: Tensor) -> tuple[Tensor, Tensor]:
    """GELU, tanh approximation: x σ(z), z = 2 √(2/π) (x + 0.044715 x³), and its derivative. Computed in float32, then
    rounded to u's dtype."""
    a = 2 * math.sqrt(2 / math.pi)
    b = a * 0.044715
    a_ = torch.tensor(a, device=u.device)  # a tensor, so that a + b x² takes one pass
    y, slope = torch.empty_like(u), torch.empty_like(u)
    exact = u.dtype == torch.float32  # then u, y and the slope need no float32 copies
    scratch = torch.empty(2 if exact else 3, min(PIECE, u.numel()), device=u.device)
    for u_, y_, slope_ in zip(*(whole.view(-1).split(PIECE) for whole in (u, y, slope)), strict=True):
        square, s, *copy = scratch[:, : len(u_)]
        x = u_ if exact else copy[0].copy_(u_)
        torch.mul(x, x, out=square)
        torch.add(a_, square, alpha=b, out=s).mul_(x).sigmoid_()
        xs = torch.mul(x, s, out=y_) if exact else x.mul_(s)
        # (x σ(z))′ = σ + x σ (1 − σ) z′ = σ + (y − y σ) (a + 3 b x²)
        torch.add(a_, square, alpha=3 * b, out=square)
        if exact:
            torch.addcmul(xs, xs, s, value=-1, out=slope_)
            torch.addcmul(s, slope_, square, out=slope_)
        else:
            y_.copy_(xs)
            slope_.copy_(s.addcmul_(xs.addcmul_(xs, s, value=-1), square))
    return y, slope


@lru_cache(8)
def _future(T: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The additive causal mask (T, T): −inf above the diagonal."""
    return torch.full((T, T), -math.inf, dtype=dtype, device=device).triu(1)


def _attend(qkv: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, list[Tensor]]:
    """Causal attention: queries, keys and values concatenated (B · T, 3 C) → (B · T, C), and the tensors that its
    backward pass needs; shape (B, T, H). Up to SHORT tokens it runs in blocks of queries, each against the keys up to its end, so that
    little of the masked half is computed."""
    (B, T, heads), C = shape, qkv.size(1) // 3
    D = C // heads
    q, k, v = qkv = qkv.view(B, T, 3, heads, D).permute(2, 0, 3, 1, 4).contiguous()  # each (B, H, T, D)
    if T > SHORT:
        y, sums = torch_private.flash_attention(q, k, v)
        return y.transpose(1, 2).reshape(B * T, C), [qkv, y, sums]
    q, k, v = qkv.view(3, B * heads, T, D)
    future = _future(T, qkv.dtype, qkv.device)
    y, weights = torch.empty_like(q), []
    count = max(QUERIES, -(-T // 4))
    for start in range(0, T, count):
        mine, seen = slice(start, min(T, start + count)), slice(min(T, start + count))
        scores = torch.baddbmm(future[mine, seen], q[:, mine], k[:, seen].transpose(1, 2), alpha=1 / math.sqrt(D))
        weights.append(torch.softmax(scores, -1))
        torch.bmm(weights[-1], v[:, seen], out=y[:, mine])
    return y.view(B, heads, T, D).transpose(1, 2).reshape(B * T, C), [qkv, *weights]


def _attend_backward(g: Tensor, shape: tuple[int, int, int], kept: list[Tensor]) -> Tensor:
    """The gradient (B · T, 3 C) of `_attend`'s input, given that of its output, g (B · T, C), and shape (B, T, H)."""
    qkv, *weights = kept
    (B, T, H), D = shape, qkv.size(-1)
    g = g.view(B, T, H, D).transpose(1, 2)
    if T > SHORT:
        y, sums = weights
        made = torch.stack(torch_private.flash_attention_backward(g, qkv[0], qkv[1], qkv[2], y, sums))
        return made.permute(1, 3, 0, 2, 4).reshape(B * T, 3 * H * D)
    q, k, v = qkv.view(3, B * H, T, D)
    g = g.reshape(B * H, T, D)
    dq, dk, dv = made = torch.empty_like(qkv).view(3, B * H, T, D)
    end = T
    for p in reversed(weights):  # the last block covers all keys, so the others can accumulate
        start = end - p.size(1)
        mine, seen = slice(start, end), slice(end)
        dscores = torch_private.softmax_backward(g[:, mine] @ v[:, seen].transpose(1, 2), p)
        torch.bmm(dscores, k[:, seen], out=dq[:, mine])
        for d, left, right in ((dk, dscores, q), (dv, p, g)):
            torch.baddbmm(d[:, seen], left.transpose(1, 2), right[:, mine], beta=int(end < T), out=d[:, seen])
        end = start
    made[:2].mul_(1 / math.sqrt(D))
    return made.view(3, B, H, T, D).permute(1, 3, 0, 2, 4).reshape(B * T, 3 * H * D)


def head_loss(
    x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, *, chunk: int = CHUNK, cap: float = 0.0
) -> Tensor:
    """The mean of `head_losses`."""
    return head_losses(x, weight, targets, dtype, chunk=chunk, cap=cap)[0]


def head_losses(
    x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, *, chunk: int = CHUNK, cap: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of the logits x weightᵀ: the mean, and that of each target, (…), without a gradient. x (…, C)
    float32, weight (V, C), targets (…) with ids below V. With `cap`, the logits are soft-capped. About `chunk` logits are
    materialized at a time. Gradients are computed in the forward pass, so backward can run only once. `torch.compile` must
    not trace it: wrap it in `torch.compiler.disable` before (torch_compile.py)."""
    mean, losses = _HeadLoss.apply(
        x.reshape(-1, x.size(-1)), weight, targets.reshape(-1), dtype, chunk, torch.is_grad_enabled(), cap
    )
    return mean, losses.view(targets.shape)


def head_pass(
    x: Tensor, weight: Tensor, targets: Tensor, chunk: int, add: Callable[[Tensor], object] | None, cap: float = 0.0
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The summed loss of x (N, C), the loss of each row (N,) and, with `add`, the sum's gradient by x; `add` gets that by
    `weight` (V, C), a summand for each chunk. Gradients are in the dtype of x and `weight`, losses in float32."""
    (N, _), V = x.shape, weight.size(0)
    rows = max(1, chunk // V)
    dx = torch.empty_like(x) if add else None
    total, losses = torch.zeros((), device=x.device), torch.empty(N, 1, device=x.device)
    for part in range(0, N, rows):
        mine = slice(part, part + rows)
        logits = x[mine] @ weight.t()  # overwritten piece by piece by its gradient p − y
        piece = rows if x.is_cuda else max(1, PIECE // V)
        pieces = (side[mine].split(piece) for side in (targets, losses))
        for z, y, made in zip(logits.split(piece), *pieces, strict=True):
            total += made.copy_(_softmax_loss(z, y[:, None], cap)).sum()
        if add is not None and dx is not None:
            torch.mm(logits, weight, out=dx[mine])
            add(logits.t() @ x[mine])
    return total, losses[:, 0], dx


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, chunk: int,
                learns: bool, cap: float) -> tuple[Tensor, Tensor]:  # fmt: skip
        made: list[Tensor] = []

        def add(one: Tensor) -> None:
            made[:] = [made[0].add_(one) if made else one.float()]

        total, losses, dx = head_pass(x.to(dtype), weight.to(dtype), targets, chunk, add if learns else None, cap)
        ctx.gradients = dx, made[0] if made else None
        ctx.mark_non_differentiable(losses)
        return total / len(x), losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        dx, dweight = ctx.gradients
        if dx is None:
            raise RuntimeError("the gradients of the loss have been fetched already")
        ctx.gradients = None, None
        share = gradients[0] / len(dx)
        return dx.float().mul_(share), dweight.mul_(share), None, None, None, None, None


def _softmax_loss(logits: Tensor, targets: Tensor, cap: float = 0.0) -> Tensor:
    """The losses (n, 1) of some rows (n, V) on `targets` (n, 1). Overwrites the logits with the gradient of their sum."""
    z = logits.float() if logits.dtype != torch.float32 else logits
    bent = torch.tanh(z / cap) if cap else None
    z = z if bent is None else bent * cap
    largest, wanted = z.amax(1, keepdim=True), z.gather(1, targets)
    p = torch.softmax(z, 1)
    # logsumexp z = max z − ln max p, since max p = e^(max z − logsumexp z).
    losses = largest - p.amax(1, keepdim=True).log() - wanted
    p.scatter_add_(1, targets, p.new_full((len(p), 1), -1.0))
    if bent is not None:  # the derivative of cap · tanh(z ÷ cap)
        p.mul_(1 - bent.square_())
    logits.copy_(p)
    return losses
