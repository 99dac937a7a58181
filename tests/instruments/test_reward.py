"""Reward: groups of answers, steps, undo, saving, the presets on nano; bad input."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.byte_models import save_byte_model
from tui_llm import cli
from tui_llm.api import LanguageModel
from tui_llm.common import paths
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.policy import PolicyRecipe, PolicySettings
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.reward import session as session_module
from tui_llm.instruments.reward.question import (
    PRESETS,
    RewardQuestion,
    RewardRun,
    RewardStep,
    SaveRewardedQuestion,
    hacking,
)
from tui_llm.llm.learn.policy_gradient import group_advantages
from tui_llm.llm.model.shape import GPTConfig

SMALL = PolicyRecipe(samples=4, tokens=6, learning_rate=1e-2)
PROMPT = Request(prompt="The cat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = GPTConfig(vocabulary=257, context=64, layers=1, heads=2, width=16)
    return save_byte_model(tmp_path_factory.mktemp("models") / "tiny", shape)


@pytest.fixture
def engine(folder: Path) -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open(str(folder))
    return engine


def asked(at: int | None = 1, spec: str = "count:e", **more: object) -> RewardQuestion:
    return RewardQuestion(PROMPT, at, spec, more.pop("recipe", SMALL), **more)  # type: ignore[arg-type]


def weights(engine: PipelineEngine) -> list[torch.Tensor]:
    return [p.detach().clone() for p in engine.remembered["reward"].copy.model.parameters()]


SPEC = "length:6"


def test_a_step_pushes_answers_by_their_advantage(engine: PipelineEngine) -> None:
    before = [p.clone() for p in engine.gpt.parameters()]
    ahead = engine.answer(asked(0, SPEC))
    assert ahead.ahead and not ahead.steps and ahead.group.step.kl == 0
    run = engine.answer(asked(1, SPEC, ahead=False))
    group, step = run.group, run.steps[0]
    assert [one.tokens for one in group.answers] == [one.tokens for one in ahead.group.answers]
    rewards = torch.tensor([one.reward for one in group.answers], dtype=torch.float64)
    assert step.mean == pytest.approx(rewards.mean().item()) and 0 < step.mean < 1
    assert [one.advantage for one in group.answers] == group_advantages(rewards).tolist()
    assert step.learned and not step.why_not and step.gradient_norm > 0
    best = max(group.answers, key=lambda one: one.advantage or 0)
    worst = min(group.answers, key=lambda one: one.advantage or 0)
    assert best.change is not None and worst.change is not None and best.change > worst.change
    assert len(best.after) == len(best.before) == len(best.tokens)
    assert all(map(torch.equal, before, engine.gpt.parameters()))


def test_before_is_the_log_probability_of_the_open_model(engine: PipelineEngine) -> None:
    run = engine.answer(asked(1, SPEC, ahead=False))
    ids = engine.ids(PROMPT)
    for one in run.group.answers:
        row = [*ids, *(token.id for token in one.tokens)]
        with torch.no_grad():
            logs = engine.gpt(torch.tensor([row]))[0].log_softmax(-1)
        wanted = [logs[len(ids) - 1 + at, token.id].item() for at, token in enumerate(one.tokens)]
        assert one.before == pytest.approx(wanted, abs=1e-4)


def test_an_answer_is_what_generate_draws_with_its_seed(engine: PipelineEngine) -> None:
    for one in engine.answer(asked(0)).group.answers:
        drawn = list(engine.generate(dataclasses.replace(PROMPT, sampler=SamplerSettings()), seed=one.seed, count=6))
        assert [token.id for token in one.tokens][:3] == [token.id for token in drawn][:3]


def test_another_rule_recipe_or_seed_takes_steps_of_its_own(engine: PipelineEngine) -> None:
    wanted = engine.answer(asked(2, SPEC, ahead=False, fresh=True))
    engine.answer(asked(3, ahead=False))
    mixed = engine.answer(asked(2, SPEC, ahead=False, keep=1))
    assert [step.spec for step in mixed.steps] == ["count:e", SPEC]
    assert engine.answer(asked(None, ahead=False)).steps == mixed.steps
    assert engine.answer(asked(2, SPEC, ahead=False)).steps == wanted.steps
    assert engine.answer(asked(2, SPEC, ahead=False, seed=7)).steps != wanted.steps
    other = engine.answer(asked(2, SPEC, ahead=False, recipe=dataclasses.replace(SMALL, learning_rate=1e-3)))
    assert {step.recipe.learning_rate for step in other.steps} == {1e-3}


def test_undo_is_bit_for_bit_and_steps_are_deterministic(engine: PipelineEngine) -> None:
    first = engine.answer(asked(1, SPEC, ahead=False))
    after_one = weights(engine)
    second = engine.answer(asked(3, SPEC, ahead=False))
    assert len(second.steps) == 3 and second.steps[0] == first.steps[0]
    after_three = weights(engine)
    back = engine.answer(asked(1, SPEC, ahead=False))
    assert back.group == first.group and all(map(torch.equal, weights(engine), after_one))
    again = engine.answer(asked(3, SPEC, ahead=False))
    assert again.group == second.group and all(map(torch.equal, weights(engine), after_three))
    fresh = engine.answer(asked(3, SPEC, ahead=False, fresh=True))
    assert fresh.steps == again.steps
    engine.answer(asked(0, SPEC))
    assert all(map(torch.equal, weights(engine), engine.gpt.parameters()))


def test_the_kl_is_the_mean_of_the_estimate_over_tokens(engine: PipelineEngine) -> None:
    run = engine.answer(asked(2, SPEC, ahead=False))
    session = engine.remembered["reward"]
    engine.answer(asked(1, SPEC, ahead=False))
    ids, terms = engine.ids(PROMPT), []
    for one in run.group.answers:
        row = torch.tensor([[*ids, *(token.id for token in one.tokens)]])
        with torch.no_grad():
            ours, theirs = (model(row)[0].double().log_softmax(-1) for model in (session.copy.model, engine.gpt))
        for at, token in enumerate(one.tokens):
            d = (theirs - ours)[len(ids) - 1 + at, token.id].item()
            terms.append(math.exp(d) - d - 1)
    assert run.steps[1].kl == pytest.approx(sum(terms) / len(terms), rel=1e-2, abs=1e-6)


def test_equal_rewards_take_no_step(engine: PipelineEngine) -> None:
    run = engine.answer(asked(1, "never:impossible", ahead=False))
    assert run.mean_rewards == (1.0,) and not run.steps[0].learned and "no step was taken" in run.steps[0].why_not
    assert all(map(torch.equal, weights(engine), engine.gpt.parameters()))
    assert run.group.answers[0].after == () and run.group.answers[0].advantage == 0
    with pytest.raises(UserError, match="nothing to save"):
        engine.answer(SaveRewardedQuestion(PROMPT, "none"))
    learned = engine.answer(
        asked(2, SPEC, ahead=False, keep=1)
    )  # after a step without one, the next is learned and undone
    assert [step.learned for step in learned.steps] == [False, True]
    engine.answer(asked(1, "never:impossible", ahead=False))
    assert all(map(torch.equal, weights(engine), engine.gpt.parameters()))


def test_scores_by_hand(engine: PipelineEngine) -> None:
    ahead = engine.answer(asked(0, "hand"))
    assert [one.reward for one in ahead.group.answers] == [None] * 4 and ahead.group.step.mean is None
    run = engine.answer(asked(1, "hand", scores=(9.0, 0.0, 3.0, 0.0), ahead=False))
    assert run.steps[0].mean == 3 and run.group.answers[0].change > run.group.answers[1].change  # type: ignore[operator]
    for scores in ((1.0, 2.0), (1.0, 2.0, 3.0, 10.0), (math.nan,) * 4, None):
        with pytest.raises(UserError):
            engine.answer(asked(2, "hand", scores=scores, ahead=False))
    assert len(engine.answer(asked(None, "hand")).steps) == 1


def test_temperature_samples_and_tokens(engine: PipelineEngine) -> None:
    recipe = PolicyRecipe(PolicySettings(temperature=0.3, advantage="std", average="token"), 6, 3, 1e-2, updates=3)
    run = engine.answer(asked(2, SPEC, recipe=recipe, ahead=False))
    assert len(run.group.answers) == 6 and all(len(one.tokens) <= 3 for one in run.group.answers)
    assert run.copy_bytes == 16 * engine.gpt.config.parameters() and run.stored >= 1


# ── bad input ──


@pytest.mark.parametrize(
    "question, part",
    [
        (RewardQuestion(Request(prompt="")), "nothing to predict from"),
        (RewardQuestion(Request(prompt="a" * 64), recipe=SMALL), "the context is full"),
        (asked(1, "matches:("), "not a regular expression"),
        (asked(1, "contains"), "contains needs TEXT"),
        (asked(1000), "up to 200"),
        (asked(-1), "up to 200"),
        (asked(1, score=lambda text: math.nan), "finite"),
        (asked(1, score=lambda text: math.inf), "finite"),
    ],
)
def test_bad_input_is_one_line(engine: PipelineEngine, question: RewardQuestion, part: str) -> None:
    with pytest.raises(UserError, match=part) as error:
        engine.answer(question)
    assert "\n" not in str(error.value)


def test_a_regular_expression_that_takes_for_ever_takes_no_step(
    engine: PipelineEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui_llm.llm.learn.reward.SECONDS", 0.05)
    monkeypatch.setattr(session_module.RewardSession, "text", lambda self, answer: "a" * 3000 + "!")
    with pytest.raises(UserError, match="takes longer than"):
        engine.answer(asked(1, "matches:(a+)+$"))
    assert not engine.remembered["reward"].groups


def test_out_of_memory_keeps_the_steps(engine: PipelineEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.answer(asked(1, SPEC, ahead=False))
    after_one = weights(engine)

    def full(*args: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for name in ("policy_step", "draw_group"):
        with monkeypatch.context() as patch:
            patch.setattr(session_module, name, full)
            with pytest.raises(UserError, match="not enough memory: a step needs"):
                engine.answer(asked(2, SPEC, seed=len(name), ahead=False, keep=1))  # another seed: nothing is drawn yet
        assert len(engine.answer(asked(None, SPEC)).steps) == 1
        assert all(map(torch.equal, weights(engine), after_one))


def test_weights_that_are_not_finite(engine: PipelineEngine) -> None:
    engine.answer(asked(1, SPEC, ahead=False))
    after_one = weights(engine)
    with pytest.raises(UserError, match=r"finite|NaN"):
        engine.answer(
            asked(4, SPEC, recipe=dataclasses.replace(SMALL, learning_rate=1.0, updates=16), ahead=False, keep=1)
        )
        with torch.no_grad():  # it stayed finite: break it
            engine.remembered["reward"].copy.model.positions.weight.fill_(math.nan)
        engine.answer(asked(9, SPEC, ahead=False, keep=9))
    run = engine.answer(asked(1, SPEC, ahead=False))
    assert len(run.steps) == 1 and all(map(torch.equal, weights(engine), after_one))


def test_a_step_that_is_overtaken_keeps_the_earlier_ones(engine: PipelineEngine) -> None:
    calls = iter([False] * 12)
    with pytest.raises(Overtaken):
        engine.answer(asked(9, SPEC), lambda: next(calls, True))
    assert 0 < len(engine.remembered["reward"].groups) < 9


def test_int8_weights_are_not_trained(folder: Path) -> None:
    engine = PipelineEngine("cpu", "int8")
    engine.open(str(folder))
    with pytest.raises(UserError, match="can't be trained"):
        engine.answer(asked())


# ── saving ──


def test_transformers_opens_what_was_saved(engine: PipelineEngine) -> None:
    engine.answer(asked(2, SPEC, ahead=False))
    saved = engine.answer(SaveRewardedQuestion(PROMPT, "rewarded"))
    theirs = AutoModelForCausalLM.from_pretrained(saved.folder)
    ids = torch.tensor([engine.ids(PROMPT)])
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(ids).logits, engine.remembered["reward"].copy.model(ids), atol=1e-4, rtol=1e-4
        )
    card = (Path(saved.folder) / "README.md").read_text()
    assert "policy gradient" in card and "| 2 | `length:6` |" in card and "The cat" in card
    with pytest.raises(UserError, match="already exists"):
        engine.answer(SaveRewardedQuestion(PROMPT, "rewarded"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="a read-only folder stops no administrator")
def test_a_read_only_model_folder_as_a_user(engine: PipelineEngine) -> None:
    _read_only(engine)


def _read_only(engine: PipelineEngine) -> None:
    engine.answer(asked(1, SPEC, ahead=False))
    top = paths.models_dir()
    top.mkdir(parents=True, exist_ok=True)
    top.chmod(0o500)
    try:
        with pytest.raises(UserError, match=r"[Pp]ermission|write") as error:
            engine.answer(SaveRewardedQuestion(PROMPT, "readonly"))
        assert "\n" not in str(error.value)
    finally:
        top.chmod(0o700)
    assert engine.answer(SaveRewardedQuestion(PROMPT, "readonly")).steps == 1


def test_a_folder_that_cannot_be_written(engine: PipelineEngine, tmp_path: Path) -> None:
    """As root, too: a file stands where the folder's parent should be."""
    engine.answer(asked(1, SPEC, ahead=False))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error:
        engine.answer(SaveRewardedQuestion(PROMPT, str(tmp_path / "file" / "model")))
    assert "\n" not in str(error.value) and len(engine.answer(asked(None, SPEC)).steps) == 1


# ── the presets, command and Python, on nano ──


@pytest.fixture(scope="module")
def nano() -> LanguageModel:
    return LanguageModel("nano", "cpu")


def test_the_preset_of_a_word_rises(nano: LanguageModel) -> None:
    """Its first steps; scripts/figures_preference.py takes all 20, and those of the preset that is hacked."""
    preset = PRESETS[0]
    run = nano.reward(preset.prompt, preset.spec, steps=8, recipe=preset.recipe)
    means = run.mean_rewards
    assert len(means) == len(run.kl) == 8 and means[0] < 0.2 and means[-1] > 0.4
    assert run.kl[0] == pytest.approx(0, abs=1e-6) and run.kl[-1] > run.kl[1]


def test_hacking_is_not_said_without_a_sign() -> None:
    step = RewardStep(1, "count:e", PolicyRecipe(), 1.0, 1.0, 0.0, 8, 0.6)
    steps = [dataclasses.replace(step, number=n, mean=float(n), kl=0.02 * n) for n in range(1, 10)]
    assert hacking(steps) == "" and hacking([]) == ""
    assert "KL" in hacking([dataclasses.replace(one, kl=one.kl * 10) for one in steps])
    assert "4 of 8" in hacking([*steps[:-1], dataclasses.replace(steps[-1], distinct=4)])
    assert hacking([dataclasses.replace(one, mean=1.0, kl=9.0) for one in steps]) == ""


def test_a_python_function_as_the_rule(nano: LanguageModel) -> None:
    run = nano.reward("The cat", lambda text: float(len(text)), samples=3, steps=1, seed=2)
    assert run.mean_rewards[0] == pytest.approx(sum(len(one.text) for one in run.group.answers) / 3)


def test_the_command(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    words = ["reward", "The cat", "--score", SPEC, "--model", str(folder), "--samples", "4", "--steps", "2", "--tokens", "6", "--seed", "3"]  # fmt: skip
    assert cli.main([*words, "--json", "--keep", str(tmp_path / "kept")]) == 0
    made = json.loads(capsys.readouterr().out)
    assert len(made["mean_rewards"]) == len(made["kl"]) == 2 and made["kept"] == str(tmp_path / "kept")
    assert made["score"] == SPEC and len(made["answers"]) == 4 and made["answers"][0]["tokens"][0]["logp_before"] < 0
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "mean reward" in text and "distinct answers" in text
    for more, part in (
        (["--score", "hand"], "need the app"),
        (["--score", "matches:("], "not a regular expression"),
        (["--steps", "0"], "--steps is 0"),
        (["--samples", "1"], "samples is 1"),
        (["--beta", "nan"], "beta"),
        (["--learning-rate", "nan"], "learning rate"),
        (["--keep", str(tmp_path / "kept")], "exists"),
    ):
        assert cli.main([*words, *more]) != 0
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1 and "Traceback" not in error
    assert cli.main(["reward", "", "--score", "full-stop", "--model", str(folder)]) != 0
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_is_plain_data(engine: PipelineEngine) -> None:
    run = engine.answer(asked(1, SPEC))
    assert isinstance(run, RewardRun) and run.ahead and run.group.step.number == 2
    assert not any(isinstance(value, torch.Tensor) for value in vars(type(run)).values())
