"""Each process's share of the rows, and the process settings stored with a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.run_helpers import TINY, make, words
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.training.plan import launch, processes
from tui_llm.training.run.run import Run, find
from tui_llm.training.run.settings import from_fields

COUNTS = st.integers(1, 24)


@given(COUNTS, COUNTS, COUNTS)
def test_every_row_is_one_processs_and_all_have_equally_many(
    batch: int, grad_accumulation_steps: int, world: int
) -> None:
    settings = from_fields({"batch_size": batch, "grad_accumulation_steps": grad_accumulation_steps}, TINY)
    if batch * grad_accumulation_steps % world:
        with pytest.raises(UserError, match="can't be shared equally") as told:
            processes.check(settings, world)
        advised = int(str(told.value).split("a batch size such as ")[1].split(",")[0])
        assert advised > batch
        processes.check(from_fields({"batch_size": advised}, settings), world)
        return
    processes.check(settings, world)
    shares = []
    for rank in range(world):
        parts, rows = processes.share(settings, rank, world)
        shares.append([(part, row) for part in parts for row in range(batch)[rows]])
    assert {len(share) for share in shares} == {batch * grad_accumulation_steps // world}
    assert sorted(pair for share in shares for pair in share) == [
        (p, r) for p in range(grad_accumulation_steps) for r in range(batch)
    ]


def test_invalid_process_settings_are_refused_before_a_run_is_created(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    command = ["train", str(text), "--run", "r", "--preset", "toy", "--no-start"]
    monkeypatch.setattr(processes, "_torch_version", lambda: (2, 9))
    for words_, why in (
        (["--nproc", "3"], "16 rows (batch size 16 × gradient accumulation steps 1) can't be shared equally by 3 processes; give a batch size such as 18"),
        (["--nproc", "0"], "nproc is 0"),
        (["--nproc", "two"], "is not a whole number"),
        (["--nproc", "2", "--shard", "--optimizer", "muon"], "muon can't step on shards in torch 2.9; update to torch 2.13, use adamw, or omit shard"),
    ):  # fmt: skip
        assert main([*command, *words_]) == 2
        assert why in capsys.readouterr().err
    assert main([*command[:-1], "--shard"]) == 2
    assert "--nproc N" in capsys.readouterr().err
    assert not (home / "runs" / "r").exists()


def test_the_number_is_kept_and_changed_by_a_resume(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(800))
    command = ["train", str(text), "--run", "r", "--preset", "toy", "--no-start", "--nproc", "4", "--shard"]
    assert main(command) == 0
    run = find("r")
    assert capsys.readouterr().out == f"{run.path}\n"  # for `torchrun … $(tui-llm train … --no-start)`
    assert (run.config().nproc, run.config().shard, run.status().state) == (4, True, "new")
    resume = ["train", "--resume", "--run", "r", "--no-start"]
    for words_, wanted in (([], (4, True)), (["--nproc", "2"], (2, True)), (["--no-shard"], (2, False))):
        assert main([*resume, *words_]) == 0
        assert (run.config().nproc, run.config().shard) == wanted
    assert main([*resume, "--nproc", "3"]) == 2 and run.config().nproc == 2
    assert "can't be shared equally by 3" in capsys.readouterr().err
    with run.held(1), pytest.raises(UserError, match="stop it first"):
        launch.set_processes(run, nproc=1)


def test_a_run_of_an_earlier_version_has_one_process(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(800))
    run = make("run", text)
    raw = json.loads((run.path / "config.json").read_text())
    del raw["nproc"], raw["shard"]
    (run.path / "config.json").write_text(json.dumps(raw))
    assert (run.config().nproc, run.config().shard) == (1, False)
    for nproc in (None, "many", [], 1e400):
        (run.path / "config.json").write_text(json.dumps({**raw, "nproc": nproc}))
        with pytest.raises(UserError, match="not a run's config"):
            run.config()


def test_several_processes_start_through_torchrun() -> None:
    alone, four = processes.command(Path("/runs/r"), 1), processes.command(Path("/runs/r"), 4)
    assert alone[1:] == ["-m", "tui_llm.training.worker", "/runs/r"]
    assert four[1:] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "4", *alone[1:]]
    assert processes.threads(1) == {} and int(processes.threads(1000)["OMP_NUM_THREADS"]) == 1
    # the argument by which `launch.stop` recognizes rank 0
    assert Run(Path("/runs/r")).name == four[-1].rpartition("/")[2]
