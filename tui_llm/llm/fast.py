"""The training step's arithmetic, made for speed on a CPU: the same numbers as `model.py`'s, in fewer and cheaper passes.

    block(x) = AddLinear(x, attention(NormLinear(x))), then AddLinear(x, GELU(NormLinear(x)));  loss(x) = head and loss in one

What makes it fast, each measured (docs/performance.md):

- Matrix products in `dtype` (bfloat16, where the CPU multiplies in it) on weights that are cast once a step. The weights
  themselves, their gradients, the residual stream, LayerNorm, softmax sums and the loss stay float32.
- Each function below is a forward pass with its backward pass written out, so that nothing is cast, copied or kept twice.
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
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from tui_llm.llm.model import Block

SHORT = 256  # tokens in a row up to which all T × T scores at once are faster than SDPA
CHUNK = 1 << 25  # logits that exist at once
PIECE = 1 << 18  # numbers that GELU or softmax works on at once: what is made of them fits a core's cache
QUERIES = 64  # of a row, that attend at once


def block(self: Block, x: Tensor, dtype: torch.dtype) -> Tensor:
    """What `Block.forward` computes, x (B, T, C) float32 → the same, with matrix products in `dtype`."""
    B, T, C = x.shape
    attention, mlp = self.attention, self.mlp
    rows = x.reshape(B * T, C)
    qkv = _norm_linear(rows, self.norm1, attention.qkv, dtype).view(B, T, 3 * C)
    y = attend(qkv, attention.heads).view(B * T, C)
    rows = _AddLinear.apply(rows, y, attention.out.weight, attention.out.bias)
    inner = _GELU.apply(_norm_linear(rows, self.norm2, mlp.up, dtype))
    return _AddLinear.apply(rows, inner, mlp.down.weight, mlp.down.bias).view(B, T, C)


def _norm_linear(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear, dtype: torch.dtype) -> Tensor:
    return _NormLinear.apply(x, norm.weight, norm.bias, norm.eps, linear.weight, linear.bias, dtype)


class _NormLinear(torch.autograd.Function):
    """x (N, C) float32 → LayerNorm(x) Wᵀ + b in `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, epsilon: float, weight: Tensor, bias: Tensor,
                dtype: torch.dtype) -> Tensor:  # fmt: skip
        h, mean, rstd = torch.native_layer_norm(x, [x.size(1)], scale, shift, epsilon)
        h, weight = h.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, scale, shift, mean, rstd, h, weight)
        return torch.addmm(bias.to(dtype), h, weight.t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        x, scale, shift, mean, rstd, h, weight = ctx.saved_tensors
        dx, dscale, dshift = torch.ops.aten.native_layer_norm_backward(
            (g @ weight).float(), x, [x.size(1)], mean, rstd, scale, shift, [True, True, True]
        )
        return dx, dscale, dshift, None, (g.t() @ h).float(), g.sum(0, dtype=torch.float32), None


class _AddLinear(torch.autograd.Function):
    """x (N, C) float32 and h (N, ·) in the products' dtype → x + h Wᵀ + b, float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        weight = weight.to(h.dtype)
        ctx.save_for_backward(h, weight)
        return x + torch.addmm(bias.to(h.dtype), h, weight.t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        h, weight = ctx.saved_tensors
        low = g.to(h.dtype)
        return g, low @ weight, (low.t() @ h).float(), g.sum(0)


class _GELU(torch.autograd.Function):
    """GELU, tanh form: x σ(z), z = 2 √(2/π) (x + 0.044715 x³). In float32; both it and its derivative then rounded."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        a = 2 * math.sqrt(2 / math.pi)
        b = a * 0.044715
        y, slope = torch.empty_like(u), torch.empty_like(u)
        scratch = torch.empty(3, min(PIECE, u.numel()), device=u.device)
        for u_, y_, slope_ in zip(*(whole.view(-1).split(PIECE) for whole in (u, y, slope)), strict=True):
            x, square, s = scratch[:, : len(u_)]
            x.copy_(u_)
            torch.mul(x, x, out=square)
            torch.mul(square, b, out=s).add_(a).mul_(x).sigmoid_()
            y_.copy_(x.mul_(s))
            # (x σ(z))′ = σ + x σ (1 − σ) z′ = σ + (y − y σ) (a + 3 b x²)
            slope_.copy_(x.addcmul_(x, s, value=-1).mul_(square.mul_(3 * b).add_(a)).add_(s))
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Causal attention: queries, keys and values side by side (B, T, 3 C) → (B, T, C)."""
    B, T, C = qkv.size(0), qkv.size(1), qkv.size(2) // 3
    if T <= SHORT:
        return _ShortAttention.apply(qkv, heads)
    q, k, v = qkv.view(B, T, 3, heads, C // heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)


@lru_cache(8)
def _future(T: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(T, T): added to the scores, it hides what comes later."""
    return torch.full((T, T), -math.inf, dtype=dtype, device=device).triu(1)


class _ShortAttention(torch.autograd.Function):
    """In blocks of queries, each with the keys that it can see: of what is above the diagonal little is computed."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int) -> Tensor:
        B, T, C = qkv.size(0), qkv.size(1), qkv.size(2) // 3
        D = C // heads
        q, k, v = qkv = qkv.view(B, T, 3, heads, D).permute(2, 0, 3, 1, 4).reshape(3, B * heads, T, D)
        future = _future(T, qkv.dtype, qkv.device)
        y, weights = torch.empty_like(q), []
        for start in range(0, T, QUERIES):
            end = min(T, start + QUERIES)
            scores = torch.baddbmm(
                future[start:end, :end], q[:, start:end], k[:, :end].transpose(1, 2), alpha=1 / math.sqrt(D)
            )
            weights.append(torch.softmax(scores, -1))
            torch.bmm(weights[-1], v[:, :end], out=y[:, start:end])
        ctx.save_for_backward(qkv, *weights)
        ctx.shape = B, T, heads, D
        return y.view(B, heads, T, D).transpose(1, 2).reshape(B, T, C)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        qkv, *weights = ctx.saved_tensors
        B, T, H, D = ctx.shape
        q, k, v = qkv
        g = gradients[0].reshape(B, T, H, D).transpose(1, 2).reshape(B * H, T, D)
        made = torch.empty_like(qkv)
        dq, dk, dv = made
        end = T
        for p in reversed(weights):  # the last block first: it sees all keys, so that the others can be added to it
            start = end - p.size(1)
            mine, seen = slice(start, end), slice(end)
            dscores = torch._softmax_backward_data(g[:, mine] @ v[:, seen].transpose(1, 2), p, -1, p.dtype)
            torch.bmm(dscores, k[:, seen], out=dq[:, mine])
            beta = int(end < T)
            for d, left, right in ((dk, dscores, q), (dv, p, g)):
                torch.baddbmm(d[:, seen], left.transpose(1, 2), right[:, mine], beta=beta, out=d[:, seen])
            end = start
        made[:2].mul_(1 / math.sqrt(D))
        return made.view(3, B, H, T, D).permute(1, 3, 0, 2, 4).reshape(B, T, 3 * H * D), None


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
