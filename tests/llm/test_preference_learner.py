"""Pairs learned one by one: undo is exact, an agreement is measured before the pair is learned, failures lose nothing."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.preference import DPOSettings, PreferenceRecipe, RankedPair
from tui_llm.llm.learn import preference_learner, undoable
from tui_llm.llm.learn.preference_learner import PreferenceLearner
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig

RECIPE = PreferenceRecipe(learning_rate=1e-2, steps=2)
PAIRS = (
    RankedPair((1, 2, 3), (4, 5), (6, 7, 8, 9), RECIPE),
    RankedPair((5,), (1, 2, 3), (10,), RECIPE),
    RankedPair((9, 8, 7, 6), (0, 0, 1), (0, 0, 2), PreferenceRecipe(DPOSettings(0.5, True, 0.3), 3e-3, 1)),
    RankedPair((1, 2, 3), (4, 6), (6, 7, 8, 9), RECIPE),
)


def tiny() -> GPT:
    torch.manual_seed(3)
    return GPT(GPTConfig(vocabulary=12, context=8, layers=2, heads=2, width=8)).requires_grad_(False)


def state(learner: PreferenceLearner) -> list[bytes]:
    """All weights and all of the optimizer's tensors."""
    optimizer = learner._copy._optimizer
    moments = [] if optimizer is None else [t for one in optimizer.state_dict()["state"].values() for t in one.values()]
    return [t.detach().numpy().tobytes() for t in (*learner.model.parameters(), *moments)]


@pytest.mark.parametrize("budget", [256 << 20, 0], ids=["stored", "recomputed"])
def test_undo_gives_back_weights_and_optimizer_bit_for_bit(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undoable.UndoableCopy.__init__, "__defaults__", (budget,))
    origin = tiny()
    before = [p.clone() for p in origin.parameters()]
    learner = PreferenceLearner(origin, 11)
    states = []
    for count in range(1, 5):
        learner.move_to(PAIRS[:count])
        states.append(state(learner))
    assert learner.stored[0] == (4 if budget else 0)
    changes = list(learner.changes)
    for count in (3, 1, 2):  # back, further back, on again
        learner.move_to(PAIRS[:count])
        assert state(learner) == states[count - 1]
        assert learner.changes == changes[:count]
    learner.move_to(())
    assert all(torch.equal(a, b) for a, b in zip(learner.model.parameters(), before, strict=True))
    learner.move_to(PAIRS)
    assert state(learner) == states[3] and learner.changes == changes
    assert all(torch.equal(a, b) for a, b in zip(origin.parameters(), before, strict=True))


def test_the_steps_are_adamw_s_on_the_loss_written_out() -> None:
    origin = tiny()
    learner = PreferenceLearner(origin, 11)
    learner.move_to(PAIRS[:2])
    model = copy.deepcopy(origin).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.999), weight_decay=0.0)

    def log(policy: GPT, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
        logs = policy(torch.tensor([[*prompt, *answer]]))[0, :, :11].log_softmax(-1)
        return torch.stack([logs[len(prompt) - 1 + at, id] for at, id in enumerate(answer)]).sum()

    losses = []
    for pair in PAIRS[:2]:
        for _ in range(2):
            optimizer.zero_grad()
            ratios = [log(model, pair.prompt, a) - log(origin, pair.prompt, a) for a in (pair.chosen, pair.rejected)]
            loss = -torch.nn.functional.logsigmoid(0.1 * (ratios[0] - ratios[1]))
            losses.append(float(loss.detach()))
            loss.backward()
            optimizer.step()
    assert [*learner.changes[0].losses, *learner.changes[1].losses] == pytest.approx(losses, abs=2e-5)
    for mine, other in zip(learner.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-3, rtol=0)  # Adam turns rounding of tiny gradients into steps


def test_what_a_choice_reports() -> None:
    learner = PreferenceLearner(tiny(), 11)
    learner.move_to(PAIRS)
    first, second, third, fourth = learner.changes
    assert first.losses[0] == math.log(2) and first.before.margin == 0.0 and first.before.loss == math.log(2)
    assert first.after.margin > 0 and first.after.loss < first.before.loss
    for change, pair in zip(learner.changes, PAIRS, strict=True):
        assert len(change.losses) == pair.recipe.steps and change.losses[0] == pytest.approx(change.before.loss)
        assert [len(change.chosen_tokens), len(change.rejected_tokens)] == [len(pair.chosen), len(pair.rejected)]
        for at, when in enumerate((change.before, change.after)):
            assert sum(one[at] for one in change.chosen_tokens) == pytest.approx(when.chosen_logp, abs=1e-5)
            assert when.margin == pytest.approx(when.chosen_reward - when.rejected_reward, abs=1e-12)
        assert change.both_fell == (
            change.after.chosen_logp < change.before.chosen_logp
            and change.after.rejected_logp < change.before.rejected_logp
        )
    # The first pair's margin is 0 whatever the model thinks; each further one is measured before its own steps.
    assert first.agreed is None
    assert [one.agreed for one in (second, third, fourth)] == [one.before.margin > 0 for one in (second, third, fourth)]
    assert [one.prompts for one in learner.changes] == [1, 2, 3, 3]


def test_a_pair_that_was_learned_is_not_held_out_again_whichever_answer_wins() -> None:
    learner = PreferenceLearner(tiny(), 11)
    turned = RankedPair(PAIRS[0].prompt, PAIRS[0].rejected, PAIRS[0].chosen, RECIPE)
    learner.move_to((PAIRS[0], PAIRS[1], turned))
    assert learner.changes[1].agreed is not None and learner.changes[2].agreed is None


def test_kl_is_that_of_the_next_token_after_the_prompts() -> None:
    origin = tiny()
    learner = PreferenceLearner(origin, 11)
    learner.move_to(PAIRS[:2])
    found = []
    for pair in PAIRS[:2]:
        with torch.no_grad():
            p, q = (m(torch.tensor([pair.prompt]))[0, -1, :11].double().softmax(-1) for m in (learner.model, origin))
        found.append(float((p * (p / q).log()).sum()))
    assert learner.changes[1].kl == pytest.approx(sum(found) / 2, abs=1e-7) and learner.changes[1].kl > 0


def test_the_sft_term_holds_the_chosen_answer_up() -> None:
    """Answers that share all but one token: without the term both fall."""
    pair = RankedPair((9, 8), (0, 3, 3, 3, 1), (0, 3, 3, 3, 2), PreferenceRecipe(DPOSettings(5.0), 1e-2, 20))
    plain, held = PreferenceLearner(tiny(), 11), PreferenceLearner(tiny(), 11)
    plain.move_to((pair,))
    sft = RankedPair(pair.prompt, pair.chosen, pair.rejected, PreferenceRecipe(DPOSettings(5.0, False, 5.0), 1e-2, 20))
    held.move_to((sft,))
    assert held.changes[0].after.chosen_logp > plain.changes[0].after.chosen_logp
    assert held.changes[0].after.chosen_logp > held.changes[0].before.chosen_logp and not held.changes[0].both_fell


def test_nan_undoes_the_choice_and_says_so() -> None:
    learner = PreferenceLearner(tiny(), 11)
    learner.move_to(PAIRS[:1])
    before = state(learner)
    bad = RankedPair(
        PAIRS[1].prompt, PAIRS[1].chosen, PAIRS[1].rejected, PreferenceRecipe(learning_rate=1.0, steps=200)
    )
    with torch.no_grad():
        old = learner.model.norm.weight.clone()
        learner.model.norm.weight[0] = math.nan
    with pytest.raises(UserError, match="no longer finite: that choice was undone, give a smaller learning rate"):
        learner.move_to((PAIRS[0], bad))
    assert state(learner) == before and torch.equal(learner.model.norm.weight, old)
    assert learner.ranked == list(PAIRS[:1])
    learner.move_to(PAIRS[:2])


def test_running_out_of_memory_loses_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = PreferenceLearner(tiny(), 11)
    learner.move_to(PAIRS[:1])
    before = state(learner)
    real = preference_learner.token_log_probabilities

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(preference_learner, "token_log_probabilities", fail)
    with pytest.raises(UserError, match="not enough memory"):
        learner.move_to(PAIRS[:2])
    monkeypatch.setattr(preference_learner, "token_log_probabilities", real)
    assert state(learner)[: len(list(learner.model.parameters()))] == before[: len(list(learner.model.parameters()))]
    learner.move_to(PAIRS[:2])
    learner.move_to(PAIRS[:1])
    assert state(learner) == before


def test_overtaken_between_two_steps_leaves_the_weights() -> None:
    learner = PreferenceLearner(tiny(), 11)
    learner.move_to(PAIRS[:1])
    before, calls = state(learner), iter([False, True])
    with pytest.raises(Overtaken):
        learner.move_to(PAIRS[:2], lambda: next(calls))
    assert state(learner) == before and len(learner.changes) == 1
