"""The loss, against torch's cross-entropy, its autograd, and closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tui_llm.common.errors import UserError
from tui_llm.facts.prediction import TargetToken
from tui_llm.facts.tokens import Token
from tui_llm.llm.predict.distribution import rank
from tui_llm.llm.predict.loss import gradient, loss_reading, token_losses
from tui_llm.llm.predict.softmax import probabilities
from tui_llm.llm.predict.units import perplexity

value = st.floats(-30, 30, width=32) | st.sampled_from([0.0, 1.0, -80.0, 80.0])


def reading(losses, vocabulary):
    """The loss on a target whose tokens have no text."""
    return loss_reading("", [TargetToken(Token(loss.id, b"", ""), loss) for loss in losses], vocabulary)


@st.composite
def problems(draw):
    """Generates logits (T, V) and targets (T,)."""
    rows, vocabulary = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    logits = [draw(st.lists(value, min_size=vocabulary, max_size=vocabulary)) for _ in range(rows)]
    targets = draw(st.lists(st.integers(0, vocabulary - 1), min_size=rows, max_size=rows))
    return torch.tensor(logits), torch.tensor(targets)


@given(problems())
def test_losses_are_torchs_cross_entropy(problem):
    logits, targets = problem
    losses = token_losses(logits, targets)
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none").tolist()
    assert [token.nats for token in losses] == pytest.approx(expected, rel=1e-12, abs=1e-14)
    total = reading(losses, logits.shape[1])
    mean = float(torch.nn.functional.cross_entropy(logits.double(), targets))
    assert total.sum == pytest.approx(mean * len(targets), rel=1e-12, abs=1e-14)
    assert total.mean == pytest.approx(mean, rel=1e-12, abs=1e-14)


@given(problems())
def test_the_parts_fit_together(problem):
    logits, targets = problem
    for row, target, token in zip(logits, targets.tolist(), token_losses(logits, targets), strict=True):
        assert token.id == target
        assert token.rank == rank(row, [target])[0] == 1 + sum(x > row[target] for x in row)
        assert token.logit == row[target].item()
        assert token.logsumexp == pytest.approx(float(torch.logsumexp(row.double(), -1)), rel=1e-12, abs=1e-14)
        assert token.nats == pytest.approx(token.logsumexp - token.logit, abs=1e-13)
        assert token.probability == pytest.approx(probabilities(row)[target].item(), rel=1e-12, abs=0)
        assert token.gradient == pytest.approx(token.probability - 1, abs=1e-15)
        assert token.nats >= 0
        assert type(token.id) is int and type(token.rank) is int and type(token.nats) is float


@given(problems())
def test_the_gradient_is_autograds(problem):
    logits, targets = problem
    row, target = logits[0].double().requires_grad_(), int(targets[0])
    torch.nn.functional.cross_entropy(row, targets[0]).backward()
    torch.testing.assert_close(torch.from_numpy(gradient(row, target)), row.grad, rtol=1e-12, atol=1e-15)
    assert float(gradient(row, target).sum()) == pytest.approx(0, abs=1e-14)
    assert token_losses(logits[:1], targets[:1])[0].gradient == pytest.approx(row.grad[target].item(), abs=1e-14)


def test_closed_forms():
    logits = torch.tensor([[3.2, 1.3, -2.1], [math.log(0.01), math.log(0.49), math.log(0.5)]])
    likely, unlikely = token_losses(logits, [0, 0])
    assert f"{likely.nats:.2f} {unlikely.nats:.2f}" == "0.14 4.61"
    assert unlikely.rank == 3

    total = reading([likely, unlikely], 3)
    assert total.sum == pytest.approx(likely.nats - math.log(0.01), abs=1e-5)
    assert total.mean == pytest.approx(total.sum / 2)
    assert 2**total.bits == pytest.approx(total.perplexity)
    assert total.uniform_loss == pytest.approx(1.0986123)


@pytest.mark.parametrize("vocabulary", [1, 2, 50257])
def test_a_uniform_distribution_costs_ln_v(vocabulary):
    losses = token_losses(torch.zeros(2, vocabulary), [0, vocabulary - 1])
    total = reading(losses, vocabulary)
    assert total.mean == pytest.approx(total.uniform_loss, abs=1e-5) == math.log(vocabulary)
    assert total.perplexity == pytest.approx(vocabulary, rel=1e-4)
    assert total.bits == pytest.approx(math.log2(vocabulary), abs=1e-5)


def test_an_impossible_target_costs_infinitely_much_and_breaks_nothing():
    (token,) = token_losses(torch.tensor([[0.0, -math.inf]]), [1])
    assert (token.nats, token.probability, token.gradient, token.rank) == (math.inf, 0.0, -1.0, 2)
    total = reading([token], 2)
    assert (total.sum, total.mean, total.bits, total.perplexity) == (math.inf,) * 4


def test_perplexity_overflows_to_infinity():
    (token,) = token_losses(torch.tensor([[0.0, 2000.0]]), [0])
    assert reading([token], 2).perplexity == math.inf
    assert perplexity(0.0) == 1.0


def test_large_logits_cost_no_precision():
    small, large = (token_losses(torch.tensor([[0.0, 2.0, 5.0]]) + shift, [1])[0] for shift in (0.0, 2.0**20))
    assert large.nats == pytest.approx(small.nats) == pytest.approx(math.log(1 + math.exp(3) + math.exp(-2)))
    assert large.probability == pytest.approx(small.probability)


def test_a_certain_target_costs_nothing():
    (token,) = token_losses(torch.tensor([[0.0]]), [0])
    assert str(token.nats) == "0.0"  # not -0.0


def test_a_nearly_certain_target_keeps_a_gradient():
    (token,) = token_losses(torch.tensor([[0.0, -15.0]]), [0])
    assert token.gradient == pytest.approx(-1 / (1 + math.exp(15)), rel=1e-9)


@pytest.mark.parametrize("targets", [[], torch.tensor([], dtype=torch.int64)])
def test_a_target_of_no_tokens_is_refused(targets):
    with pytest.raises(UserError, match="no tokens"):
        token_losses(torch.zeros(0, 5), targets)
    with pytest.raises(UserError, match="no tokens"):
        reading([], 5)


@pytest.mark.parametrize("id", [-1, 5, 10**9])
def test_an_id_out_of_the_vocabulary_is_refused(id):
    with pytest.raises(UserError, match=r"no token .* 0 to 4"):
        token_losses(torch.zeros(1, 5), [id])
    with pytest.raises(UserError, match=r"no token .* 0 to 4"):
        gradient(torch.zeros(5), id)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_without_a_softmax_are_refused(bad):
    with pytest.raises(UserError, match="logits contain"):
        token_losses(torch.tensor([[0.0, 1.0], [bad, 0.0]]), [0, 0])
    with pytest.raises(UserError, match="logits contain"):
        gradient(torch.tensor([bad, 0.0]), 0)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="match"):
        token_losses(torch.zeros(2, 5), [1])
