"""The training step's arithmetic, made for speed on a CPU: the same numbers as `model.py`'s, in fewer and cheaper passes.

    block(x): a whole block, its backward pass written out;  head_loss(x): head and loss in one

What makes it fast, each measured (dev/LOG.md):

- Matrix products in `dtype` (bfloat16, where the CPU multiplies in it) on weights that are cast once a step. The weights
  themselves, their gradients, the residual stream, LayerNorm, softmax sums and the loss stay float32.
- A block is one function of autograd's: nothing is cast, copied or kept twice, and small models wait less for Python.
- Attention at short lengths as batched matrix products of blocks: there it beats the kernels that never hold all T × T scores.
- The tanh of GELU is a sigmoid, which costs a fifth: ½ (1 + tanh z) = σ(2 z). Its derivative is made beside its value,
  piece by piece, so that what is between them stays in the cache.
- Head and loss together, over chunks of rows, their gradients made in the forward pass: the logits of a whole batch (the
  largest tensor of all where the vocabulary is) never exist.

No dropout here, and gradients of first order only. Letters as in `model.py`; N = B · T rows.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

SHORT = 1024  # tokens in a row up to which scores are kept, which is faster than SDPA; of longer ones they'd fill the memory
CHUNK = 1 << 25  # logits that exist at once
PIECE = 1 << 19  # numbers that GELU or softmax works on at once: what is made of them fits a core's cache
QUERIES = 64  # of a row, at least, that attend at once (and at least a quarter of it)


def block(self: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    """What `Block.forward` computes, x (B, T, C) float32 → the same, with matrix products in `dtype`."""
    parts = self.norm1, self.attention.qkv, self.attention.out, self.norm2, self.mlp.up, self.mlp.down
    parameters = [p for part in parts for p in (part.weight, part.bias)]
    return _Block.apply(x.contiguous(), self.attention.heads, self.norm1.eps, dtype, *parameters)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int, epsilon: float, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        scale1, shift1, qkv_, qkv_bias, out_, out_bias, scale2, shift2, up_, up_bias, down_, down_bias = parameters
        qkv_, out_, up_, down_ = (weight.to(dtype) for weight in (qkv_, out_, up_, down_))
        rows = x.view(-1, x.size(2))
        h1, *stats1 = torch.native_layer_norm(rows, [rows.size(1)], scale1, shift1, epsilon)
        h1 = h1.to(dtype)
        qkv = torch.addmm(qkv_bias.to(dtype), h1, qkv_.t())
        y, attended = _attend(qkv.view(*x.shape[:2], -1), heads)
        middle = rows + torch.addmm(out_bias.to(dtype), y, out_.t())
        h2, *stats2 = torch.native_layer_norm(middle, [rows.size(1)], scale2, shift2, epsilon)
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
        dx, *norm2 = _norm_backward(low @ up_, middle, mean2, rstd2, scale2, shift2)
        g = dx.add_(g)  # what came past the MLP, beside it
        low = g.to(h1.dtype)
        out = _weight_gradients(low, y)
        low = _attend_backward(low @ out_, ctx.shape, attended)
        qkv = _weight_gradients(low, h1)
        dx, *norm1 = _norm_backward(low @ qkv_, rows, mean1, rstd1, scale1, shift1)
        return dx.add_(g).view_as(gradients[0]), None, None, None, *norm1, *qkv, *out, *norm2, *up, *down


def _weight_gradients(g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Those of a linear layer's weight and bias, float32, of its output's gradient (N, ·) and its input h (N, ·)."""
    ones = _ones(len(g), g.dtype, g.device)
    return (g.t() @ h).float(), (ones @ g).float()[0]  # as a product, summing rows is quicker than as a sum


@lru_cache(8)
def _ones(N: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones(1, N, dtype=dtype, device=device)


def _norm_backward(g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor) -> Any:
    """The gradients of LayerNorm's input (in memory of its own), scale and shift, float32."""
    return torch.ops.aten.native_layer_norm_backward(
        g.float(), x, [x.size(1)], mean, rstd, scale, shift, [True, True, True]
    )


def _gelu(u: Tensor) -> tuple[Tensor, Tensor]:
    """GELU, tanh form: x σ(z), z = 2 √(2/π) (x + 0.044715 x³); and its slope. In float32, then rounded to u's dtype."""
    a = 2 * math.sqrt(2 / math.pi)
    b = a * 0.044715
    a_ = torch.tensor(a, device=u.device)  # as a tensor it can be what b x² is added to, in one pass
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
    """(T, T): added to the scores, it hides what comes later."""
    return torch.full((T, T), -math.inf, dtype=dtype, device=device).triu(1)


def _attend(qkv: Tensor, heads: int) -> tuple[Tensor, list[Tensor]]:
    """Causal attention: queries, keys and values side by side (B, T, 3 C) → (B · T, C), and what its backward pass needs.
    Up to SHORT tokens in blocks of queries, each with the keys that it can see: of what lies in the future little is
    computed."""
    B, T, C = qkv.size(0), qkv.size(1), qkv.size(2) // 3
    D = C // heads
    q, k, v = qkv = qkv.view(B, T, 3, heads, D).permute(2, 0, 3, 1, 4).contiguous()  # each (B, H, T, D)
    if T > SHORT:
        y, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
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
    """The gradient (B · T, 3 C) of `_attend`'s input, of its output's g (B · T, C); shape (B, T, H)."""
    qkv, *weights = kept
    (B, T, H), D = shape, qkv.size(-1)
    g = g.view(B, T, H, D).transpose(1, 2)
    if T > SHORT:
        y, sums = weights
        made = torch.stack(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            g, *qkv, y, sums, 0.0, True
        ))  # fmt: skip
        return made.permute(1, 3, 0, 2, 4).reshape(B * T, 3 * H * D)
    q, k, v = qkv.view(3, B * H, T, D)
    g = g.reshape(B * H, T, D)
    dq, dk, dv = made = torch.empty_like(qkv).view(3, B * H, T, D)
    end = T
    for p in reversed(weights):  # the last block first: it sees all keys, so that the others can be added to it
        start = end - p.size(1)
        mine, seen = slice(start, end), slice(end)
        dscores = torch._softmax_backward_data(g[:, mine] @ v[:, seen].transpose(1, 2), p, -1, p.dtype)
        torch.bmm(dscores, k[:, seen], out=dq[:, mine])
        for d, left, right in ((dk, dscores, q), (dv, p, g)):
            torch.baddbmm(d[:, seen], left.transpose(1, 2), right[:, mine], beta=int(end < T), out=d[:, seen])
        end = start
    made[:2].mul_(1 / math.sqrt(D))
    return made.view(3, B, H, T, D).permute(1, 3, 0, 2, 4).reshape(B * T, 3 * H * D)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def head_loss(x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, *, chunk: int = CHUNK) -> Tensor:
    """Mean cross-entropy in nats of the logits x weightᵀ: x (…, C) float32, weight (V, C), targets (…) below V. About
    `chunk` logits exist at a time. Its gradients are there when it returns; they can be fetched once."""
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
            logits = x[mine] @ low.t()  # becomes, piece by piece, its own gradient p − y (of the mean: ÷ N)
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
    """The summed loss of some rows (n, V) on `targets` (n, 1); the logits are replaced by its gradient."""
    z = logits.float() if logits.dtype != torch.float32 else logits
    largest, wanted = z.amax(1, keepdim=True), z.gather(1, targets)
    p = torch.softmax(z, 1)
    # ln Σ exp z is the largest logit less the logarithm of its probability.
    loss = (largest - p.amax(1, keepdim=True).log() - wanted).sum()
    logits.copy_(p.scatter_add_(1, targets, p.new_full((len(p), 1), -1.0)))
    return loss
