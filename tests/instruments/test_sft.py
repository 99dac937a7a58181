"""Step-by-step fine-tuning: per-token losses against torch, exact undo, the folder that is written, bad input; and the command."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.instruments.sft.question import Instructed, InstructQuestion, PairsFileQuestion, SftQuestion
from tui_llm.llm.data.instruction_pairs import EXAMPLES, Pair
from tui_llm.llm.learn.instruct import Example, Tuner, greedy_answers
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig

PAIRS = EXAMPLES[:2]
ROWS = [Example((1, 2, 3, 4), (-100, -100, 4, 5)), Example((6, 7), (-100, 8))]


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


def tiny() -> GPT:
    torch.manual_seed(1)
    return GPT(GPTConfig(vocabulary=11, context=8, layers=1, heads=2, width=8))


def weights(tuner: Tuner) -> list[torch.Tensor]:
    return [one.detach().clone() for one in tuner.model.parameters()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, one, two))


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_undo_gives_back_the_weights_bit_for_bit(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """With stored states, and without any: then they are recomputed."""
    monkeypatch.setattr("tui_llm.llm.learn.instruct.BUDGET", budget)
    origin = tiny()
    tuner = Tuner(origin, ROWS, 11, 1e-2, undo=True)
    assert tuner.move_to(0) == tuner.move_to(0) and same(weights(tuner), list(origin.parameters()))
    seen, losses = [weights(tuner)], [tuner.move_to(0)]
    for at in range(1, 6):
        losses.append(tuner.move_to(at))
        seen.append(weights(tuner))
    for at in (4, 5, 2, 0, 5, 1):
        assert tuner.move_to(at) == losses[at] and len(tuner.losses) == at
        assert same(weights(tuner), seen[at])
    assert tuner.losses == losses[:1]


def test_a_step_that_is_not_finite_is_undone() -> None:
    tuner = Tuner(tiny(), ROWS, 11, 1e-2, undo=True)
    tuner.move_to(2)
    before, tuner.learning_rate = weights(tuner), 1e30
    tuner._optimizer.param_groups[0]["lr"] = 1e30
    with pytest.raises(UserError, match="learning rate is too large"):
        tuner.move_to(5)
    assert len(tuner.losses) == 2 and same(weights(tuner), before)


def test_token_losses_are_torchs_and_their_mean_is_the_loss() -> None:
    tuner = Tuner(tiny(), ROWS, 11, 1e-2)
    loss = tuner.move_to(3)
    found = tuner.token_losses(tuner.model)
    for row, mine in zip(ROWS, found, strict=True):
        with torch.no_grad():
            logits = tuner.model(torch.tensor([row.inputs]))[0]
        each = F.cross_entropy(logits, torch.tensor(row.targets), ignore_index=-100, reduction="none")
        assert mine == pytest.approx(each[torch.tensor(row.targets) != -100].tolist(), abs=1e-5)
    flat = [one for costs in found for one in costs]
    assert loss == pytest.approx(math.fsum(flat) / len(flat), abs=1e-5)


def test_greedy_answers_are_those_of_one_prompt_alone() -> None:
    model = tiny().eval()
    prompts = [[1], [2, 3, 4], [5, 6]]

    def alone(ids: list[int]) -> list[int]:
        made = list(ids)
        while len(made) < min(8, len(ids) + 4):
            with torch.no_grad():
                id = int(model(torch.tensor([made]))[0, -1].argmax())
            if id == 9:
                break
            made.append(id)
        return made[len(ids) :]

    assert greedy_answers(model, prompts, 11, lambda id: id == 9, 4) == [alone(ids) for ids in prompts]
    assert greedy_answers(model, [[1] * 8], 11, lambda _: False, 4) == [[]]  # the context is full
    with pytest.raises(Overtaken):
        greedy_answers(model, prompts, 11, lambda _: False, 4, lambda: True)


def test_steps_before_and_after(engine: PipelineEngine) -> None:
    start = engine.answer(SftQuestion(Request(), PAIRS, 0))
    assert start.loss == pytest.approx(start.first, abs=1e-4) and not start.losses
    assert [one.answer_before for one in start.pairs] == [one.answer_after for one in start.pairs]
    done = engine.answer(SftQuestion(Request(), PAIRS, 10))
    assert len(done.losses) == 10 and done.loss < 0.1 < done.first == start.first
    for one in done.pairs:
        assert one.answer_after == one.pair.answer != one.answer_before
        assert "".join(token.text for token in one.tokens[:-1]) == "\n" + one.pair.answer
        assert len(one.tokens) == len(one.before) == len(one.after) and sum(one.after) < sum(one.before)
    assert done.answer_tokens == sum(len(one.tokens) for one in done.pairs) < done.tokens
    back = engine.answer(SftQuestion(Request(), PAIRS, 9, answers=False))
    assert back.losses == done.losses[:9] and back.loss == done.losses[9]
    assert engine.answer(SftQuestion(Request(), PAIRS, 10)) == done


def test_what_is_kept_is_what_was_shown(engine: PipelineEngine) -> None:
    engine.release()
    shown = engine.answer(SftQuestion(Request(), PAIRS, 3, answers=False))
    made = engine.answer(InstructQuestion(Request(), PAIRS, 3, name="three"))
    assert isinstance(made, Instructed) and made.losses == shown.losses and made.after == shown.loss
    other = PipelineEngine("cpu")
    other.open("three")
    tuned = engine.screen_cache["sft"].tuner.model  # kept: the screen goes on from there
    ours, theirs = tuned.state_dict(), other.gpt.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "3 steps of supervised fine-tuning on 2" in (Path(made.folder) / "README.md").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="already"):
        engine.answer(InstructQuestion(Request(), PAIRS, 3, name="three"))
    engine.answer(InstructQuestion(Request(), PAIRS, 3, name="three", force=True))


@pytest.mark.parametrize(
    ("pairs", "rate", "said"),
    [
        ((), 1e-3, "no pairs"),
        ((Pair("word " * 300, "x"),), 1e-3, "shorten"),
        (PAIRS, math.nan, "learning rate is nan"),
        (PAIRS, 2.0, "learning rate is 2"),
    ],
)
def test_bad_input_is_one_line(engine: PipelineEngine, pairs: tuple[Pair, ...], rate: float, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        engine.answer(SftQuestion(Request(), pairs, 1, rate))
    assert "\n" not in str(caught.value)


def test_one_pair_is_enough_and_weights_for_inference_are_not(engine: PipelineEngine) -> None:
    assert engine.answer(SftQuestion(Request(), PAIRS[:1], 1)).pairs[0].pair == PAIRS[0]
    small = PipelineEngine("cpu", "int8")
    small.open("nano")
    with pytest.raises(UserError, match="int8 weights can't be trained"):
        small.answer(SftQuestion(Request(), PAIRS, 1))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions")
def test_a_read_only_models_folder(engine: PipelineEngine) -> None:
    paths.models_dir().mkdir(parents=True, exist_ok=True)
    paths.models_dir().chmod(0o500)
    try:
        with pytest.raises(UserError, match="make it writable"):
            engine.answer(InstructQuestion(Request(), PAIRS, 1, name="sealed"))
    finally:
        paths.models_dir().chmod(0o700)


def test_a_models_folder_that_is_a_file(engine: PipelineEngine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="can't write"):
        engine.answer(InstructQuestion(Request(), PAIRS, 1, name=str(tmp_path / "file" / "model")))
    assert (tmp_path / "file").read_text() == "x"


def test_pairs_of_a_file(engine: PipelineEngine, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "a", "answer": "b"}\r\n')
    assert engine.answer(PairsFileQuestion(Request(), str(path))) == (Pair("a", "b"),)
    path.write_text('{"question": "a", "answer": "b"}\n{"question": "a", "answer": ""}\n')
    with pytest.raises(UserError, match=r"line 2 is not a pair"):
        engine.answer(PairsFileQuestion(Request(), str(path)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("Who are you?\tI am Tim.\n", encoding="utf-8")
    words = ("sft", str(file), "--pair", "What is red? => A rose.", "--steps", "3", "--device", "cpu")
    assert main((*words, "--json", "--keep", str(tmp_path / "tim"))) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 3 == len(found["losses"]) and found["loss_after"] < found["loss_before"]
    assert [one["answer"] for one in found["pairs"]] == ["I am Tim.", "A rose."]
    assert found["pairs"][0]["tokens"][0]["loss_before"] > 0 and found["kept"] == str(tmp_path / "tim")
    assert (tmp_path / "tim" / "chat_template.jinja").is_file()
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "loss on the answers" in out and "wanted  A rose." in out and "before" in out
    for wrong in (
        ("sft",),
        ("sft", "--pair", "no arrow"),
        ("sft", "--pair", "a =>"),
        ("sft", str(tmp_path / "none.tsv")),
        (*words, "--steps", "0"),
        (*words, "--learning-rate", "nan"),
        (*words, "--keep", str(tmp_path / "tim")),
        (*words, "--keep", " "),
    ):
        assert main(wrong) == 2, wrong
        assert capsys.readouterr().err.count("\n") == 1
