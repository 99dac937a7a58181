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

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tui_llm.llm.model import torch_private

SHORT = 1024  # up to this many tokens, attention scores are stored, which is faster than SDPA
CHUNK = 1 << 25  # logits materialized at a time
PIECE = 1 << 19  # elements per GELU or softmax pass: the intermediate values fit into a core's cache
QUERIES = 64  # minimum size of a query block (and at least a quarter of the row)


def block(self: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    """`Block.forward`: x (B, T, C) float32 → (B, T, C) float32, with matrix products in `dtype`."""
    parts = self.norm1, self.attention.qkv, self.attention.out, self.norm2, self.mlp.up, self.mlp.down
    parameters = [p for part in parts for p in (part.weight, part.bias)]
    return _Block.apply(x.contiguous(), self.attention.heads, self.norm1.eps, dtype, *parameters)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int, epsilon: float, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        scale1, shift1, qkv_, qkv_bias, out_, out_bias, scale2, shift2, up_, up_bias, down_, down_bias = parameters
        qkv_, out_, up_, down_ = (weight.to(dtype) for weight in (qkv_, out_, up_, down_))
        rows = x.view(-1, x.size(2))
        h1, *stats1 = torch_private.layer_norm(rows, scale1, shift1, epsilon)
        h1 = h1.to(dtype)
        qkv = torch.addmm(qkv_bias.to(dtype), h1, qkv_.t())
        y, attended = _attend(qkv.view(*x.shape[:2], -1), heads)
        middle = rows + torch.addmm(out_bias.to(dtype), y, out_.t())
        h2, *stats2 = torch_private.layer_norm(middle, scale2, shift2, epsilon)
        h2 = h2.to(dtype)
        inner, slope = _gelu(torch.addmm(up_bias.to(dtype), h2, up_.t()))
        ctx.save_for_backward(rows, scale1, shift1, *stats1, h1, qkv_, y, out_, middle, scale2, shift2, *stats2, h2, up_,
                              slope, inner, down_, *attended)  # fmt: skip
        ctx.shape = x.size(0), x.size(1), heads
        return (middle + torch.addmm(down_bias.to(dtype), inner, down_.t())).view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (rows, scale1, shift1, mean1, rstd1, h1, qkv_, y, out_, middle, scale2, shift2, mean2, rstd2, h2, up_,
         slope, inner, down_, *attended) = ctx.saved_tensors  # fmt: skip
        g = gradients[0].reshape(rows.shape)
        low = g.to(h1.dtype)
        down = _weight_gradients(low, inner)
        low = low @ down_
        low *= slope
        up = _weight_gradients(low, h2)
        dx, *norm2 = torch_private.layer_norm_backward((low @ up_).float(), middle, mean2, rstd2, scale2, shift2)
        g = dx.add_(g)  # the gradient through the residual connection
        low = g.to(h1.dtype)
        out = _weight_gradients(low, y)
        low = _attend_backward(low @ out_, ctx.shape, attended)
        qkv = _weight_gradients(low, h1)
        dx, *norm1 = torch_private.layer_norm_backward((low @ qkv_).float(), rows, mean1, rstd1, scale1, shift1)
        return dx.add_(g).view_as(gradients[0]), None, None, None, *norm1, *qkv, *out, *norm2, *up, *down


def _weight_gradients(g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a linear layer's weight and bias, float32, from its output gradient g (N, ·) and its input h (N,
    ·)."""
    ones = _ones(len(g), g.dtype, g.device)
    return (g.t() @ h).float(), (ones @ g).float()[0]  # the row sum as a matrix product, which is faster than sum()


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
    scratch = torch.empty(3, min(PIECE, u.numel()), device=u.device)
    for u_, y_, slope_ in zip(*(whole.view(-1).split(PIECE) for whole in (u, y, slope)), strict=True):
        x, square, s = scratch[:, : len(u_)]
        x.copy_(u_)
        torch.mul(x, x, out=square)
        torch.add(a_, square, alpha=b, out=s).mul_(x).sigmoid_()
        y_.copy_(x.mul_(s))
        # (x σ(z))′ = σ + x σ (1 − σ) z′ = σ + (y − y σ) (a + 3 b x²)
        torch.add(a_, square, alpha=3 * b, out=square)
        slope_.copy_(x.addcmul_(x, s, value=-1).mul_(square).add_(s))
    return y, slope


@lru_cache(8)
def _future(T: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The additive causal mask (T, T): −inf above the diagonal."""
    return torch.full((T, T), -math.inf, dtype=dtype, device=device).triu(1)


def _attend(qkv: Tensor, heads: int) -> tuple[Tensor, list[Tensor]]:
    """Causal attention: queries, keys and values concatenated (B, T, 3 C) → (B · T, C), and the tensors that its
    backward pass needs. Up to SHORT tokens it runs in blocks of queries, each against the keys up to its end, so that
    little of the masked half is computed."""
    B, T, C = qkv.size(0), qkv.size(1), qkv.size(2) // 3
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


def head_loss(x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, *, chunk: int = CHUNK) -> Tensor:
    """Mean cross-entropy in nats of the logits x weightᵀ: x (…, C) float32, weight (V, C), targets (…) with ids below
    V. About `chunk` logits are materialized at a time. Gradients are computed in the forward pass, so backward can run
    only once. `torch.compile` must not trace it: wrap it in `torch.compiler.disable` before (torch_compile.py)."""
    V, C = weight.shape
    return _HeadLoss.apply(
        x.reshape(-1, C), weight, targets.reshape(-1), dtype, max(1, chunk // V), torch.is_grad_enabled()
    )


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, rows: int,
                learns: bool) -> Tensor:  # fmt: skip
        N, V = x.size(0), weight.size(0)
        x, low = x.to(dtype), weight.to(dtype)
        dx = torch.empty_like(x) if learns else None
        dweight: Tensor | None = None
        total = torch.zeros((), device=x.device)
        for part in range(0, N, rows):
            mine = slice(part, part + rows)
            logits = x[mine] @ low.t()  # overwritten piece by piece by its gradient p − y (÷ N in backward)
            piece = rows if x.is_cuda else max(1, PIECE // V)
            for z, y in zip(logits.split(piece), targets[mine].split(piece), strict=True):
                total += _softmax_loss(z, y[:, None])
            if dx is not None:
                torch.mm(logits, low, out=dx[mine])
                made = logits.t() @ x[mine]
                dweight = made.float() if dweight is None else dweight.add_(made)
        ctx.gradients = dx, dweight
        return total / N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        dx, dweight = ctx.gradients
        if dx is None:
            raise RuntimeError("the gradients of the loss have been fetched already")
        ctx.gradients = None, None
        share = gradients[0] / len(dx)
        return dx.float().mul_(share), dweight.mul_(share), None, None, None, None


def _softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The summed loss of some rows (n, V) on `targets` (n, 1). Overwrites the logits with their gradient."""
    z = logits.float() if logits.dtype != torch.float32 else logits
    largest, wanted = z.amax(1, keepdim=True), z.gather(1, targets)
    p = torch.softmax(z, 1)
    # logsumexp z = max z − ln max p, since max p = e^(max z − logsumexp z).
    loss = (largest - p.amax(1, keepdim=True).log() - wanted).sum()
    logits.copy_(p.scatter_add_(1, targets, p.new_full((len(p), 1), -1.0)))
    return loss
