"""`tui-llm replay`: a step of a real run, recomputed bit for bit, with its rows as they stand in the corpus."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.training.run_helpers import TINY, lines, words
from tests.training.run_helpers import work as in_a_process
from tui_llm.cli import main
from tui_llm.commands.replay import _put_tables
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.facts.pin import Pin
from tui_llm.llm.model import checkpoint, intact
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan import launch, replay
from tui_llm.training.run import pins, step_rows
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import from_fields
from tui_llm.training.run.step_rows import Record, ReplayResult
from tui_llm.training.worker.replay import StepReplay


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A text to learn, and a file of noise."""
    folder = tmp_path_factory.mktemp("corpus")
    text, noise = folder / "text.txt", folder / "noise.txt"
    text.write_text(words(2000))
    draw = random.Random(7)
    noise.write_text("".join(chr(draw.randrange(33, 127)) for _ in range(1000)))
    return [text, noise]


def make(name: str, corpus: list[Path], **fields: Any) -> Run:
    return launch.create(name, list(map(str, corpus)), from_fields(fields, TINY), preset="toy", device="cpu")


def everything(run: Run) -> dict[str, tuple[int, bytes]]:
    """Every file of a run, with when it was written."""
    return {
        str(path.relative_to(run.path)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in run.path.rglob("*")
        if path.is_file()
    }


def replayed(run: Run, step: int, gradients: bool = False, **more: Any) -> ReplayResult:
    """A step, recomputed in this process."""
    found = ReplayResult()

    def say(value: dict[str, Any]) -> None:
        if (record := step_rows.parse(json.loads(json.dumps(value)))) is not None:
            found.add(record)

    made = StepReplay(run, step, say, **more)
    say({"step": made.measure()})
    for value in made.gradients() if gradients else ():
        say(value)
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dropout": 0.1, "grad_accumulation_steps": 2},
        {"optimizer": "muon", "schedule": "wsd", "precision": "fp32", "arch": "modern", "width": 64},
    ],
)
def test_steps_are_recomputed_bit_for_bit_though_the_run_was_killed_between(
    corpus: list[Path], fields: dict[str, Any]
) -> None:
    run = make("run", corpus, **fields)
    assert in_a_process(run, ("half a line", 14)) == -9
    assert in_a_process(run) == 0, run.log_path.read_text()
    assert [step for step, _ in run.checkpoints()] == [28, 30]
    logged = {line["step"]: line for line in lines(run.metrics_path)}
    with run.held(1):  # as a live worker does: only its files are read
        before = everything(run)
        for step, begun in ((30, 28), (29, 28), (12, 0), (1, 0)):
            found = replayed(run, step).step
            assert found is not None and found.begun == begun == replay.origin(run, step - 1).begun
            assert (found.loss, found.grad_norm, found.lr) == tuple(
                logged[step][name] for name in ("loss", "grad_norm", "lr")
            )
            assert found.matches and "yes" in found.match_line and found.dropout is bool(fields.get("dropout"))
        again = replayed(run, 30, from_start=True).step
        assert again is not None and again.begun == 0 and again.matches
        assert everything(run) == before


def test_rows_are_the_corpuss_own_and_their_losses_torchs(corpus: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make("run", corpus, precision="fp32", grad_accumulation_steps=2)
    pins.write(run.pins_path, [Pin("the cat", " sat"), Pin("on a")])
    assert in_a_process(run) == 0
    found = replayed(run, 29, gradients=True)
    step = found.step
    assert step is not None and step.matches and len(step.rows) == 8
    model = checkpoint.load(run.path / "checkpoint-28").eval().requires_grad_(True)
    files = {str(path): path.read_bytes() for path in corpus}
    for row in step.rows:
        ids = torch.tensor([token.id for token in row.tokens])
        with torch.no_grad():
            wanted = F.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="none")
        assert row.losses == pytest.approx(wanted.tolist(), abs=1e-4)
        ends = [*(part.first for part in row.parts[1:]), len(row.tokens)]
        for part, end in zip(row.parts, ends, strict=True):
            data, offset = files[part.place.file], part.place.offset
            assert offset is not None
            mine = [token.id for token in row.tokens[part.first : end] if not token.special]
            assert byte_level().encode_array(data[offset:].decode()).tolist()[: len(mine)] == mine
    assert math.fsum(row.loss for row in step.rows) / 8 == pytest.approx(step.loss, abs=1e-5)
    assert math.fsum(step.loss_share(row) for row in step.rows) == pytest.approx(1)

    # the shares sum to the norm, and each row's to its own
    assert math.fsum(share.share for share in found.shares.values()) == pytest.approx(step.grad_norm, rel=1e-4)
    for share in found.shares.values():
        assert math.fsum(share.tokens) == pytest.approx(share.share, abs=1e-4 * step.grad_norm)
    row = step.rows[3]
    ids = torch.tensor([token.id for token in row.tokens])[None]
    model.loss(ids[:, :-1], ids[:, 1:]).backward()  # type: ignore[no-untyped-call]
    norm = float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm())
    assert found.shares[3].norm == pytest.approx(norm, rel=1e-4)

    # the pins, before and after: the checkpoints' own
    with_target, without = step.pins
    after = replayed(run, 30).step
    assert after is not None
    assert (with_target.before, with_target.after) != (None, None)
    assert after.pins[0].before == with_target.after and after.pins[0].loss_before == with_target.loss_after
    assert with_target.loss_after == pytest.approx(-math.log(with_target.after or 0))
    assert without.token is not None and without.before is not None and without.after is not None


def test_the_noise_is_named_as_what_made_a_step(corpus: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = make("run", corpus, precision="fp32", steps=40)
    assert in_a_process(run) == 0
    noisy = [
        step
        for step in range(30, 41)
        if any(
            "noise.txt" in part.place.file
            for row in (replayed(run, step).step or pytest.fail("no step")).rows
            for part in row.parts
        )
    ]
    assert noisy
    found = replayed(run, noisy[0], gradients=True)
    assert any("noise.txt" in part.place.file for part in found.ordered()[0].parts)
    files = found.by_file()
    assert {Path(one.file).name for one in files} == {"text.txt", "noise.txt"}
    assert math.fsum(one.loss for one in files) == pytest.approx(1)
    assert math.fsum(one.norm or 0 for one in files) == pytest.approx(1, rel=1e-3)
    assert found.top and all(rank.place is not None for rank in found.top)
    top = found.tokens(1)[0]
    assert (
        top.place is not None
        and "noise.txt" in top.place.file
        and top.place.offset is not None
        and found.step is not None
    )
    _put_tables(found, found.step, "run")
    assert f"tui-llm train --branch run --step {noisy[0] - 1} --exclude FILE" in capsys.readouterr().out
    token = found.step.rows[top.row].tokens[top.position + 1]
    assert corpus[1].read_bytes()[top.place.offset :].startswith(token.bytes)


def test_another_learning_rate_or_number_of_steps_since_is_no_difference(corpus: list[Path]) -> None:
    run = make("run", corpus, steps=16)
    assert in_a_process(run) == 0
    launch.set_steps(run, 30)
    assert in_a_process(run) == 0
    found = replayed(run, 12).step
    assert found is not None and found.matches


def test_what_differs_is_said(corpus: list[Path]) -> None:
    run = make("run", corpus, steps=8)
    assert in_a_process(run) == 0
    text = run.metrics_path.read_text().splitlines()
    line = json.loads(text[4])
    text[4] = json.dumps({**line, "loss": line["loss"] + 0.5})
    run.metrics_path.write_text("\n".join(text) + "\n")
    write_json(run.path / "status.json", {**run.facts(), "torch": "1.0", "arithmetic": "fp32, by hand"})
    found = replayed(run, 5).step
    assert found is not None and not found.matches
    assert (
        "matches the log: no, difference -0.5 in the loss, +0 in the gradient norm (torch 1.0 then" in found.match_line
    )
    assert "arithmetic fp32, by hand then, " in found.why
    run.write_status("finished", "")
    assert "does not say" in (replayed(run, 5).step or pytest.fail("no step")).why


class InProcess:
    """A `ReplayProcess` that computes in this process."""

    def __init__(
        self, run: Run, step: int, *, from_start: bool = False, gradients: bool = True, keep: bool = False
    ) -> None:
        replay.check(run, step)
        self.made: list[dict[str, Any]] = []
        work = StepReplay(run, step, self.made.append, from_start=from_start)
        self.made.append({"step": work.measure()})
        self.made += list(work.gradients()) if gradients else []

    def records(self) -> Iterator[Record]:
        for value in self.made:
            if (record := step_rows.parse(value)) is not None:
                yield record

    def cancel(self) -> None:
        pass


def test_the_command(corpus: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make("run", corpus, steps=8)
    assert in_a_process(run) == 0
    before = everything(run)
    capsys.readouterr()
    assert main(["replay", "run", "--step", "8", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    last = lines(run.metrics_path)[-1]
    assert (value["step"], value["loss"], value["grad_norm"], value["matches"]) == (
        8,
        last["loss"],
        last["grad_norm"],
        True,
    )
    assert len(value["rows"]) == 4
    for row in value["rows"]:
        assert {"file", "offset", "ids", "losses"} <= row.keys()
        assert len(row["ids"]) == 17 and len(row["losses"]) == 16
        assert Path(row["file"]) in corpus and isinstance(row["offset"], int)
    assert math.fsum(row["gradient_share"] for row in value["rows"]) == pytest.approx(value["grad_norm"], rel=0.02)
    assert everything(run) == before
    monkeypatch.setattr(replay, "ReplayProcess", InProcess)
    assert main(["replay", "run", "--step", "8"]) == 0
    out = capsys.readouterr().out
    assert "matches the log: yes" in out and "what made this" in out and "text.txt, byte" in out
    assert everything(run) == before


def test_one_process_recomputes_step_after_step_bit_for_bit(corpus: list[Path]) -> None:
    """Forward from the state before, back from the checkpoint, after a problem, and after the rows' shares were cut short."""
    run = make("run", corpus, steps=8)
    assert in_a_process(run) == 0
    process = replay.ReplayProcess(run, 3, keep=True)
    number, shares = process.process.pid, []
    for step, known in ((3, False), (4, True), (5, True), (2, False), (3, True)):
        if step != process.step:
            process.again(step)
        assert process.origin.known == known
        found = step_rows.ReplayResult()
        for record in process.records():
            found.add(record)
        assert found.step is not None and found.step.step == step and found.step.matches and found.complete
        shares.append([found.shares[row].tokens for row in sorted(found.shares)])
        assert process.ready and process.process.pid == number
    assert shares[0] == shares[-1]
    with pytest.raises(UserError, match="has the steps 1 to 8"):
        process.again(9)
    process.again(4)
    process.finish()
    list(process.records())
    assert process.ready
    process.cancel()
    assert process.process.returncode is not None and not process.ready


def test_checkpoints_that_go_or_are_damaged_meanwhile(corpus: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A live worker drops old checkpoints while a reader loads them; and a replay leaves the run as it is."""
    run = make("run", corpus, steps=6, checkpoint_every=2)
    assert in_a_process(run) == 0
    assert [step for step, _ in run.checkpoints()] == [4, 6]
    digests = run.path / "corpus.json"
    digests.unlink()
    check = intact.check

    def dropped(folder: Path, without: Any = ()) -> dict[str, Any]:
        folder.rename(folder.with_name("dropped"))
        return check(folder, without)

    with monkeypatch.context() as patched:
        patched.setattr(intact, "check", dropped)
        found = replayed(run, 6).step
    assert found is not None and found.begun == 0 and found.matches
    assert not digests.exists()
    (run.path / "dropped").rename(run.path / "checkpoint-4")
    (run.path / "checkpoint-4" / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint-4 is damaged .*From the run's beginning, --from-start does it"):
        replayed(run, 6)
    found = replayed(run, 6, from_start=True).step
    assert found is not None and found.matches


def test_what_cannot_be_recomputed_is_refused_in_a_line(
    corpus: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("run", corpus, steps=8)
    assert main(["replay", "run", "--step", "1"]) == 2 and "has no steps yet" in capsys.readouterr().err
    assert in_a_process(run) == 0
    assert main(["replay", "run", "--step", "9"]) == 2 and "has the steps 1 to 8" in capsys.readouterr().err
    assert main(["replay", "run", "--step", "0"]) == 2
    config = run.config()
    for changed, why in (
        (dataclasses.replace(config, nproc=2), "2 processes"),
        (dataclasses.replace(config, shard=True), "a sharded model"),
        (
            dataclasses.replace(config, settings=from_fields({"objective": "preference"}, config.settings)),
            "preference pairs",
        ),
    ):
        run.write_config(changed)
        with pytest.raises(UserError, match=why):
            replay.check(run, 3)
    run.write_config(config)
    monkeypatch.setattr(replay, "CHEAP", 0.0)
    with pytest.raises(UserError, match=r"from step 0: 2 steps to recompute before it, .*--from-start"):
        replay.ReplayProcess(run, 3)
    text, saved = corpus[0], corpus[0].read_text()
    try:
        text.write_text(saved + "more\n")
        with pytest.raises(UserError, match="has changed since it began"):
            replayed(run, 8)
    finally:
        text.write_text(saved)
