"""Other people's checkpoints, read step by step: folders that transformers wrote, compared with transformers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.llm.hub.hub import save_vocabulary
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan.foreign import ForeignProcess
from tui_llm.training.run import head_readings, pin_readings
from tui_llm.training.run.foreign import digests, readings
from tui_llm.training.run.foreign.foreign_run import ForeignRun, find, opened
from tui_llm.training.run.foreign.foreign_table import read_table
from tui_llm.training.run.foreign.step_folders import step_folders, step_of
from tui_llm.training.run.pins_snapshot import PinsReader
from tui_llm.training.worker.foreign import FolderReader

transformers = pytest.importorskip("transformers", reason="extra `transformers`")

PROMPT, TARGET = "the cat sat on", " the"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkpoint-10, -20 and -30 of a GPT-2 as transformers' Trainer lays them out, checkpoint-25 a copy of -20. Only the folder
    itself has the vocabulary."""
    top = tmp_path_factory.mktemp("out")
    torch.manual_seed(0)
    vocabulary = byte_level()
    config = transformers.GPT2Config(
        vocab_size=vocabulary.size, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256
    )
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    x = torch.tensor([vocabulary.encode("the cat sat on the mat. the cat")])
    log: list[dict[str, float]] = []
    for step in range(1, 31):
        loss = model(x, labels=x).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log.append({"step": step, "loss": loss.item(), "learning_rate": 1e-2})
        if step % 10 == 0:
            model.save_pretrained(folder := top / f"checkpoint-{step}")
            (folder / "trainer_state.json").write_text(json.dumps({"log_history": log, "max_steps": 30}))
            torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    shutil.copytree(top / "checkpoint-20", top / "checkpoint-25")
    save_vocabulary(vocabulary, top)
    return top


def files_of(top: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(top.rglob("*"))}


def read(run: ForeignRun, pins: list[Pin]) -> list[str]:
    """Reads the checkpoints in this process, as the worker does; returns the progress."""
    run.use_pins(pins)
    said: list[dict[str, Any]] = []
    FolderReader(run, "cpu", said.append).read()
    return [record["text"] for record in said]


@pytest.mark.parametrize(
    ("name", "step"),
    [("checkpoint-500", 500), ("step_1000", 1000), ("step143000", 143000), ("step1000-tokens4B", 1000), ("stage1-step50-tokens1B", 50),
     ("global_step12", 12), ("model_000500", 500), ("ckpt_7", 7), ("iter-0000100", 100), ("main", None), ("checkpoint-best", None),
     ("tokenizer", None), ("epoch-3", None), ("step" + "9" * 30, None)],
)  # fmt: skip
def test_names_of_checkpoints(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_revisions_in_the_hub_cache(tmp_path: Path) -> None:
    for commit, name in (("a1", "step10"), ("b2", "step2"), ("c3", "main")):
        (tmp_path / "refs").mkdir(exist_ok=True)
        (tmp_path / "refs" / name).write_text(commit)
        (tmp_path / "snapshots" / commit).mkdir(parents=True)
        (tmp_path / "snapshots" / commit / "config.json").write_text("{}")
    (tmp_path / "refs" / "step99").write_text("../../outside")
    assert [(one.step, one.path.name) for one in step_folders(tmp_path)] == [(2, "b2"), (10, "a1")]


def test_same_weights_are_found_without_reading_all(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[Path] = []
    real = digests._whole
    monkeypatch.setattr(digests, "_whole", lambda path, *rest: whole.append(path) or real(path, *rest))
    found = digests.same_weights(step_folders(checkpoints), known := {})
    assert found == [(20, 25)] and {path.parent.name for path in whole} == {"checkpoint-20", "checkpoint-25"}
    assert len(known) == 2 and digests.same_text(found[0]).startswith("steps 20 and 25 have the same weights")


def test_readings_are_those_of_transformers(checkpoints: Path) -> None:
    run, before = ForeignRun(checkpoints), files_of(checkpoints)
    said = read(run, [Pin(PROMPT, TARGET), Pin(PROMPT)])
    assert files_of(checkpoints) == before  # nothing is written there
    assert not run.path.is_relative_to(checkpoints) and not list(run.path.glob("with-vocabulary-*"))
    assert sum(text.startswith("read ") for text in said) == 4
    vocabulary, evaluations = byte_level(), pin_readings.evaluations(run)
    assert [one.step for one in evaluations] == [10, 20, 25, 30]
    ids, wanted = vocabulary.encode(PROMPT), vocabulary.encode(TARGET)
    lenses = {one.step: one for one in run.lenses()}
    for evaluation in evaluations:
        model = transformers.GPT2LMHeadModel.from_pretrained(checkpoints / f"checkpoint-{evaluation.step}").eval()
        with torch.inference_mode():
            made = model(torch.tensor([ids + wanted]), output_hidden_states=True)
            log_p = made.logits[0].double().log_softmax(-1)
            at = len(ids) - 1
            loss = -sum(float(log_p[at + nth, id]) for nth, id in enumerate(wanted))
            # the last hidden state has the final LayerNorm already
            streams = torch.stack([one[0, at] for one in made.hidden_states[:-1]])
            by_layer = torch.cat((model.lm_head(model.transformer.ln_f(streams)), made.logits[0, at : at + 1])).softmax(
                -1
            )
        pin, plain = evaluation.readings
        assert pin.loss == pytest.approx(loss, abs=1e-4)
        assert plain.candidates[0].probability == pytest.approx(float(log_p[at].exp().max()), abs=1e-5)
        lens = lenses[evaluation.step].of(Pin(PROMPT, TARGET))
        assert lens is not None and lens.target == vocabulary.token_bytes(wanted[0])
        assert [row.layer for row in lens.rows] == [None, 0, 1]
        expected = [float(row[wanted[0]]) for row in by_layer]
        assert [row.probability for row in lens.rows] == pytest.approx(expected, abs=1e-5)
        assert [row.likeliest for row in lens.rows] == pytest.approx([float(row.max()) for row in by_layer], abs=1e-5)
    first, second = (next(one for one in evaluations if one.step == step).readings for step in (20, 25))
    assert first == second
    assert (
        [one.step for one in head_readings.evaluations(run)] == [10, 20, 25, 30] == [one.step for one in run.samples()]
    )
    assert evaluations[-1].readings[0].loss < evaluations[0].readings[0].loss  # it learned the text
    snapshot = PinsReader(run).read()  # what the screen of pins shows
    assert not snapshot.problem and len(snapshot.evaluations) == 4 and snapshot.status is not None
    assert snapshot.status.state == "foreign"


def test_another_architecture_and_revisions_side_by_side(tmp_path: Path) -> None:
    """A Llama whose revisions lie in folders named after them, compared with transformers."""
    from tests.adapters.foreign import make

    model = make("llama", tmp_path / "step1000-tokens4B")
    with torch.no_grad():
        model.lm_head.weight.mul_(3)
    model.save_pretrained(tmp_path / "step2000-tokens8B")  # without a vocabulary
    run = ForeignRun(tmp_path)
    read(run, [Pin("The cat", " sat")])
    table = read_table(run)
    assert [one.step for one in table.steps] == [1000, 2000] and not table.notes
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "step1000-tokens4B")
    size = len(tokenizer)  # the model's other rows only pad its embedding
    ids, wanted = (tokenizer.encode(part, add_special_tokens=False) for part in ("The cat", " sat"))
    for one in table.steps:
        reference = AutoModelForCausalLM.from_pretrained(one.path).eval()
        with torch.inference_mode():
            made = reference(torch.tensor([ids + wanted]), output_hidden_states=True)
            log_p = made.logits[0, :, :size].double().log_softmax(-1)
            stream = reference.model.norm(made.hidden_states[0][0, len(ids) - 1])
            first = reference.lm_head(stream)[:size].softmax(-1)
        loss = -sum(float(log_p[len(ids) - 1 + nth, id]) for nth, id in enumerate(wanted))
        assert one.pins[0].loss == pytest.approx(loss, abs=1e-4)
        assert one.lenses[0].rows[0].probability == pytest.approx(float(first[wanted[0]]), abs=1e-5)
        assert one.induction is not None and one.sample.startswith("The cat")


def test_what_is_known_is_not_read_again(checkpoints: Path, tmp_path: Path) -> None:
    top = tmp_path / "run"
    shutil.copytree(checkpoints, top)
    shutil.rmtree(top / "checkpoint-25")
    run, pin = ForeignRun(top), Pin(PROMPT)
    assert sum(text.startswith("read ") for text in read(run, [pin])) == 3
    assert readings.complete(run, [pin]) and not readings.complete(run, [pin, Pin("a")])
    assert not any(text.startswith("read ") for text in read(run, [pin]))
    assert sum(text.startswith("read ") for text in read(run, [Pin("a")])) == 3  # only the new pin
    assert all(len(one.readings) == 2 for one in pin_readings.evaluations(run)) and len(run.samples()) == 3
    shutil.copy(top / "checkpoint-10" / "model.safetensors", top / "checkpoint-30")  # another file: it is read again
    shutil.rmtree(top / "checkpoint-20")
    assert [text for text in read(run, []) if text.startswith("read ")] == ["read checkpoint-30"]
    assert [one.step for one in pin_readings.evaluations(run)] == [10, 30]
    table = read_table(run)
    assert [(one.step, one.same) for one in table.steps] == [(10, 30), (30, 10)]
    assert table.steps[0].pins[0].candidates == table.steps[1].pins[0].candidates
    run.delete()
    assert not run.path.exists() and (top / "checkpoint-10" / "config.json").is_file()


def test_a_checkpoint_that_cannot_be_opened_is_named_and_the_others_are_read(checkpoints: Path, tmp_path: Path) -> None:
    top = tmp_path / "run"
    shutil.copytree(checkpoints, top)
    weights = top / "checkpoint-20" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    run = ForeignRun(top)
    read(run, [Pin(PROMPT)])
    assert [one.step for one in pin_readings.evaluations(run)] == [10, 25, 30]
    (problem,) = read_table(run).steps[1].problems
    assert "checkpoint-20 can't be opened" in problem and "\n" not in problem
    assert readings.complete(run, [Pin(PROMPT)])


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    found = capsys.readouterr()
    return code, found.out, found.err


def test_the_command_line(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the real process."""
    code, out, err = said(capsys, "runs", "steps", str(checkpoints), "--pin", f"{PROMPT}=>{TARGET}")
    assert code == 0 and not err and "steps 20 and 25 have the same weights" in out and "checkpoint-30" in out
    lens = said(capsys, "runs", "steps", str(checkpoints), "--lens")[1].splitlines()
    assert any(line.split() == ["step", "target", "embedding", "layer", "0", "layer", "1"] for line in lens)
    rows = json.loads(said(capsys, "runs", "steps", str(checkpoints), "--list", "--json")[1])
    assert rows["same_weights"] == [[20, 25]] and [one["step"] for one in rows["steps"]] == [10, 20, 25, 30]
    assert len(rows["steps"][0]["lens"][0]["rows"]) == 3 and rows["steps"][0]["sample"].startswith(PROMPT)
    pins = json.loads(said(capsys, "probes", str(checkpoints), "--json")[1])["pins"]
    losses = [one["pins"][0]["loss"] for one in rows["steps"]]
    assert [moment["loss"] for moment in pins[0]["moments"]] == losses and losses[0] > losses[-1]
    assert "step 30" in said(capsys, "samples", str(checkpoints))[1]
    chart = json.loads(said(capsys, "runs", "curves", str(checkpoints), "--chart", "loss", "--json")[1])
    assert [x for x, _ in chart["lines"][0]["points"]] == list(range(1, 31))
    compared = json.loads(said(capsys, "runs", "compare", str(checkpoints), str(checkpoints / "checkpoint-10" / "trainer_state.json"), "--json")[1])  # fmt: skip
    assert [one["step"] for one in compared["runs"]] == [30, 10]
    assert [run.source for run in opened()] == [Path(os.path.realpath(checkpoints))]


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, words in (
        (tmp_path, "neither checkpoints"),
        (tmp_path / "none", "there is no"),
        ("./\0", "no file name"),
    ):
        code, out, err = said(capsys, "runs", "steps", str(path))
        assert (code, out) == (2, "") and words in err and err.count("\n") == 1, err
    log = tmp_path / "out.log"
    log.write_text("iter 0: loss 4.0000, time 1.00ms, mfu -100.00%\n")
    code, _, err = said(capsys, "runs", "steps", str(log))
    assert code == 2 and "runs curves" in err
    with pytest.raises(UserError, match="no checkpoints to read"):
        ForeignProcess(ForeignRun(log))
    with pytest.raises(UserError, match="no run"):
        find("none")
    with pytest.raises(UserError, match="no run of tui-llm"):
        ForeignRun(log).config()
