"""Head scores, against transformers' eager attentions with TransformerLens' formula, and against closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tui_llm.common import paths
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.head_scores import DUPLICATE, INDUCTION, PREVIOUS, SCORES, HeadScore, best
from tui_llm.facts.interventions import KEY, Intervention, ModelPart
from tui_llm.llm.model import checkpoint, head_scores
from tui_llm.llm.model.interventions import GPTLayout, Hooks
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig


def detection_pattern(score: str, ids: list[int]) -> Tensor:
    """The patterns as TransformerLens defines them: shifts of the matrix of equal tokens."""
    tokens = torch.tensor(ids)
    same = torch.tril((tokens[None] == tokens[:, None]).double() - torch.eye(len(ids), dtype=torch.float64))
    if score == DUPLICATE:
        return same
    if score == PREVIOUS:
        return torch.diag(torch.ones(len(ids) - 1, dtype=torch.float64), -1)
    return torch.tril(torch.cat((torch.zeros(len(ids), 1, dtype=torch.float64), same[:, :-1]), 1))


def expected(attentions: tuple[Tensor, ...], ids: list[int], score: str) -> Tensor:
    """`detect_head(error_measure="mul")`: Σ A P ÷ Σ A, for each head; (N, H)."""
    weights = torch.cat(attentions).double()
    return (weights * detection_pattern(score, ids)).sum((-2, -1)) / weights.sum((-2, -1))


def check(model: GPT, reference: object, ids: list[int]) -> None:
    with torch.inference_mode():
        attentions = reference(torch.tensor([ids]), output_attentions=True).attentions  # type: ignore[operator]
    scorer = head_scores.score(model, [ids])
    found, counts = scorer.scores(), scorer.counts
    heads = model.config.heads
    assert [(one.layer, one.head) for one in found] == [divmod(at, heads) for at in range(model.config.layers * heads)]
    for score in SCORES:
        theirs = expected(attentions, ids, score)
        assert counts.of(score) == int((detection_pattern(score, ids).sum(1) > 0).sum())
        for one in found:
            ours = one.of(score)
            assert ours is not None
            assert ours * counts.of(score) / counts.tokens == pytest.approx(
                theirs[one.layer, one.head].item(), abs=1e-5
            )


@pytest.mark.parametrize("shape", ((2, 2, 16), (3, 4, 32), (1, 1, 8)), ids=str)
def test_scores_equal_transformers_on_random_weights(shape: tuple[int, int, int], tmp_path: Path) -> None:
    layers, heads, width = shape
    torch.manual_seed(layers)
    config = GPT2Config(
        vocab_size=50, n_positions=48, n_layer=layers, n_head=heads, n_embd=width, initializer_range=0.5
    )
    config._attn_implementation = "eager"
    reference = GPT2LMHeadModel(config).eval()
    reference.save_pretrained(tmp_path)
    model = checkpoint.load(tmp_path, torch.device("cpu"))
    check(model, reference, head_scores.repeated(list(range(49)), 20, seed=1, start=49))
    check(
        model, reference, torch.randint(6, (30,)).tolist()
    )  # several earlier occurrences, and neighbours that are equal


def test_no_score_counts_attention_that_is_cut(tmp_path: Path) -> None:
    torch.manual_seed(4)
    config = GPT2Config(vocab_size=20, n_positions=24, n_layer=2, n_head=2, n_embd=16, initializer_range=0.5)
    config._attn_implementation = "eager"
    reference = GPT2LMHeadModel(config).eval()
    reference.save_pretrained(tmp_path)
    model = checkpoint.load(tmp_path, torch.device("cpu"))
    ids = [7, 1, 2, 3, 1, 2, 3, 1, 4]
    mask = torch.full((len(ids), len(ids)), -math.inf).triu(1)
    for token in (2, 5):  # no later token attends to these
        mask[token + 1 :, token] = -math.inf
    with torch.inference_mode():
        attentions = reference(torch.tensor([ids]), attention_mask=mask[None, None], output_attentions=True).attentions
    plain = head_scores.score(model, [ids]).scores()
    hooks = Hooks(GPTLayout(model), [Intervention(ModelPart(KEY, token)) for token in (2, 5)])
    try:
        scorer = head_scores.score(model, [ids])
    finally:
        hooks.remove()
    for score in SCORES:
        theirs = expected(attentions, ids, score) * scorer.counts.tokens / scorer.counts.of(score)
        made = torch.tensor([one.of(score) for one in scorer.scores()]).view(2, 2)
        torch.testing.assert_close(made.double(), theirs, atol=1e-5, rtol=1e-5)
        # Layer 0 has the same queries and keys; only the masks differ.
        assert all(
            abs((a.of(score) or 0) - (b.of(score) or 0)) > 1e-4
            for a, b in zip(plain[:2], scorer.scores()[:2], strict=True)
        )


def test_scores_equal_transformers_on_nano() -> None:
    folder = paths.shipped_models_dir() / "nano"
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").float().eval()
    model = checkpoint.load(folder, torch.device("cpu"))
    check(model, reference, head_scores.repeated(list(range(4000)), 50, seed=1, start=4095))


def test_a_head_made_by_hand_scores_1() -> None:
    """Attention that is exactly the pattern, and attention that is uniform."""
    ids = [7, 1, 2, 3, 1, 2, 3]
    patterns = head_scores.patterns(ids)
    for score in SCORES:
        weights = patterns[score].double()
        weights[~patterns[score].any(-1), 0] = 1.0
        scorer = head_scores.Scorer()
        scorer.add(ids, [weights[None]])
        (found,) = scorer.scores()
        assert found.of(score) == 1.0
        assert all((found.of(other) or 0.0) < 0.5 for other in SCORES if other != score)
    uniform = torch.ones(7, 7).tril()
    scorer = head_scores.Scorer()
    scorer.add(ids, [(uniform / uniform.sum(-1, keepdim=True))[None]])
    (found,) = scorer.scores()
    assert found.induction == pytest.approx((1 / 5 + 1 / 6 + 1 / 7) / 3)
    assert found.previous == pytest.approx(sum(1 / n for n in range(2, 8)) / 6)


def test_patterns_of_a_text() -> None:
    wanted = head_scores.patterns([5, 6, 5, 5])
    assert wanted[DUPLICATE].nonzero().tolist() == [[2, 0], [3, 0], [3, 2]]
    assert wanted[INDUCTION].nonzero().tolist() == [[2, 1], [3, 1], [3, 3]]
    assert wanted[PREVIOUS].nonzero().tolist() == [[1, 0], [2, 1], [3, 2]]


def test_random_tokens_are_different_repeated_and_reproducible() -> None:
    ids = head_scores.repeated(list(range(10, 60)), 20, seed=3, start=99)
    assert ids[0] == 99 and ids[1:21] == ids[21:] and len(set(ids)) == 21 and set(ids[1:]) <= set(range(10, 60))
    assert ids == head_scores.repeated(list(range(10, 60)), 20, seed=3, start=99)
    assert ids != head_scores.repeated(list(range(10, 60)), 20, seed=4, start=99)
    assert head_scores.ordinary(5, lambda id: id == 4) == [0, 1, 2, 3]


def test_what_fits_a_context() -> None:
    assert head_scores.room(1024, 50, 4000) == 50
    assert head_scores.room(64, 50, 4000, start=1) == 31 and head_scores.room(64, 50, 4000) == 32
    assert head_scores.room(64, 50, 7) == 7 and head_scores.room(5, 50, 100, start=0) == 2
    for context, tokens in ((4, 100), (64, 1)):
        with pytest.raises(UserError, match="detector"):
            head_scores.room(context, 50, tokens, start=0)


def test_no_repetition_no_score_and_several_texts_are_one_mean() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocabulary=50, context=24, layers=2, heads=2, width=16)).eval()
    alone = head_scores.score(model, [[1, 2, 3]])
    assert all(one.induction is one.duplicate is None and one.previous is not None for one in alone.scores())
    assert best(alone.scores(), INDUCTION) is None
    first, second = [1, 2, 1, 2, 1], [3, 4, 5, 3]
    parts = [head_scores.score(model, [ids]) for ids in (first, second)]
    both = head_scores.score(model, [first, second])
    for at, one in enumerate(both.scores()):
        total = sum((part.scores()[at].induction or 0.0) * part.counts.induction for part in parts)
        assert one.induction == pytest.approx(total / both.counts.induction)


def test_damaged_weights_and_an_overtaken_question() -> None:
    model = GPT(GPTConfig(vocabulary=50, context=24, layers=2, heads=2, width=16)).eval()
    with pytest.raises(Overtaken):
        head_scores.score(model, [[1, 2, 3]], lambda: True)
    model.blocks[0].attention.qkv.weight.data.fill_(math.nan)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="NaN"):
        head_scores.score(model, [[1, 2, 1]]).scores()


def test_the_best_head_is_the_first_of_equals() -> None:
    heads = [HeadScore(0, at, score, None, 0.0) for at, score in enumerate((0.1, 0.7, 0.7))]
    top = best(heads, INDUCTION)
    assert top is not None and top.name == "0.1" and best(heads, PREVIOUS) is None
