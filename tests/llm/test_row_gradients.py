"""Shares of rows and tokens in a gradient, against torch.func's gradients of each, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad

from tui_llm.llm.learn.row_gradients import RowGradients
from tui_llm.llm.model import switches
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig


@pytest.mark.parametrize("arch", ["gpt2", "untied", "modern", "rope,window=3,gqa"])
def test_shares_are_the_dot_products_with_the_batchs_gradient(arch: str) -> None:
    torch.manual_seed(3)
    shape = GPTConfig(vocabulary=23, context=7, layers=2, heads=2, width=8)
    model = GPT(switches.applied(shape, arch)).double()
    model.used = 21  # the last two ids pad the embedding
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x, y = torch.randint(21, (2, 5, 7))
    weights = {name: parameter.detach() for name, parameter in model.weights()}

    def loss(values: dict[str, torch.Tensor], ids: torch.Tensor, targets: torch.Tensor, at: int | None) -> torch.Tensor:
        logits = functional_call(model, values, (ids[None],))[0, :, :21]
        found = F.cross_entropy(logits, targets, reduction="none")
        return found.mean() if at is None else found[at]

    def flat(gradients: dict[str, torch.Tensor], rows: int) -> torch.Tensor:
        return torch.cat([one.reshape(rows, -1) for one in gradients.values()], 1)

    rows = [grad(loss)(weights, x[r], y[r], None) for r in range(5)]
    gradient = {name: torch.stack([row[name] for row in rows]) for name in weights}
    own = flat(gradient, 5)
    batch = own.mean(0)
    shares = RowGradients(model, {name: 7 * one.mean(0) for name, one in gradient.items()}, 5)
    found = [shares.row(x[r : r + 1], y[r : r + 1]) for r in range(5)]
    assert [norm for norm, _ in found] == pytest.approx(own.norm(dim=1).tolist(), rel=1e-9)
    assert [share for _, share in found] == pytest.approx(
        (own @ batch / batch.norm() / 5).tolist(), rel=1e-9, abs=1e-12
    )
    assert sum(share for _, share in found) == pytest.approx(float(batch.norm()), rel=1e-9)

    for r in range(5):
        tokens = shares.tokens(x[r : r + 1], y[r : r + 1])
        ones = [flat(grad(loss)(weights, x[r], y[r], t), 1)[0] for t in range(7)]
        wanted = [float(one @ batch) / float(batch.norm()) / 35 for one in ones]
        assert tokens == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert sum(tokens) == pytest.approx(found[r][1], rel=1e-9)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropped_gradients_have_no_part() -> None:
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocabulary=11, context=4, layers=1, heads=1, width=4)).double()
    x, y = torch.randint(11, (2, 1, 4))

    def masked(model: GPT) -> None:
        model.positions.weight.grad = None

    model.loss(x, y).backward()
    masked(model)
    gradient = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.weights()}
    norm = float(torch.cat([one.flatten() for one in gradient.values()]).norm())
    own, share = RowGradients(model, gradient, 1, masked).row(x, y)
    assert own == pytest.approx(norm) and share == pytest.approx(norm)
