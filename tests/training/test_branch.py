"""Branches: runs that continue from a step of another one, with other settings or without a file of its corpus."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.training.run_helpers import TINY, contents, lines, losses, words
from tests.training.run_helpers import work as in_a_process
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.training.plan import branch, launch, replay
from tui_llm.training.run.rename import rename
from tui_llm.training.run.run import Run, find
from tui_llm.training.run.settings import from_fields
from tui_llm.training.run.snapshot import RunReader
from tui_llm.training.worker import process
from tui_llm.training.worker.worker import Worker


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with a text to learn and a file of noise."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "text.txt").write_text(words(2000))
    draw = random.Random(7)
    (folder / "noise.txt").write_text("".join(chr(draw.randrange(33, 127)) for _ in range(1000)))
    return folder


def make(name: str, corpus: Path, **fields: Any) -> Run:
    return launch.create(name, [str(corpus)], from_fields(fields, TINY), preset="toy", device="cpu")


def test_a_branch_without_a_change_is_its_parent(corpus: Path) -> None:
    """From a kept checkpoint, from steps after one, and from the seed: the same steps, weights and optimizer state."""
    parent = make("parent", corpus, dropout=0.1)
    assert in_a_process(parent) == 0
    before = {path: path.read_bytes() for path in parent.path.rglob("*") if path.is_file()}
    for step in (28, 29, 10, 0):
        made = branch.create(parent, step, f"from-{step}", {})
        assert in_a_process(made) == 0, made.log_path.read_text()
        assert losses(made) == losses(parent)[step:]
        # the whole folder: weights, optimizer, vocabulary
        assert contents(made.checkpoints()[-1][1]) == contents(parent.checkpoints()[-1][1])
        config = made.config()
        assert (config.parent, config.parent_step) == ("parent", step)
        snapshot = RunReader(made).read()
        assert snapshot.parent is not None
        assert list(snapshot.parent.train) == [(row[0], row[1]) for row in losses(parent)[:step]]
    assert {path: path.read_bytes() for path in parent.path.rglob("*") if path.is_file()} == before


def test_a_branch_can_have_other_settings_and_no_longer_needs_its_parent(corpus: Path) -> None:
    parent = make("parent", corpus)
    assert in_a_process(parent) == 0
    elder = losses(parent)
    for fields, same in (
        ({"learning_rate": "1e-3"}, True),  # the first loss is that of the parent's weights and rows
        ({"optimizer": "muon"}, True),
        ({"batch_size": "8", "steps": "20"}, False),
    ):
        made = branch.create(parent, 12, branch.free_name("parent", 12), fields)
        if "learning_rate" in fields:  # killed, and resumed from its own checkpoint
            assert in_a_process(made, ("half a line", 3)) == -9, made.log_path.read_text()
            assert made.checkpoints()[0][0] == 12
        assert in_a_process(made) == 0, made.log_path.read_text()
        mine = losses(made)
        assert mine[0][0] == 13 and (mine[0][1] == elder[12][1]) is same and mine[1][1] != elder[13][1]
    kept = find("parent-at-12")
    parent.delete()
    launch.set_steps(kept, 32)
    assert in_a_process(kept) == 0, kept.log_path.read_text()
    assert [m[0] for m in losses(kept)] == list(range(13, 33))
    snapshot = RunReader(kept).read()
    assert snapshot.parent is not None and len(snapshot.parent.train) == 12
    orphan = branch.create(kept, 20, "orphan", {})
    kept.delete()
    assert in_a_process(orphan) == 1
    assert "branches from parent-at-12, which is gone" in orphan.status().message


def test_a_branch_of_a_run_with_a_damaged_checkpoint_is_recomputed_from_its_beginning(corpus: Path) -> None:
    parent = make("parent", corpus, steps=6, checkpoint_every=2)
    assert in_a_process(parent) == 0
    (parent.path / "checkpoint-4" / "optimizer.safetensors").write_bytes(b"")
    made = branch.create(parent, 5, "made", {})
    assert in_a_process(made) == 0, made.log_path.read_text()
    assert losses(made) == losses(parent)[5:]


def test_a_branch_of_a_branch_has_the_whole_curve(corpus: Path) -> None:
    parent = make("parent", corpus)
    assert in_a_process(parent) == 0
    second = branch.create(parent, 14, "second", {"learning_rate": "2e-3"})
    assert in_a_process(second) == 0
    third = branch.create(second, 20, "third", {})
    assert in_a_process(third) == 0
    assert [step for step, _ in second.checkpoints()] == [14, 28, 30]
    with pytest.raises(UserError, match="step 14 is to be recomputed there"):
        replay.check(second, 14)
    assert replay.origin(second, 20) == replay.Origin(14, 6, replay.origin(second, 20).seconds)
    with pytest.raises(UserError, match="branch from that run"):
        branch.create(second, 13, "wrong", {})
    snapshot = RunReader(third).read()
    assert snapshot.parent is not None
    wanted = [(row[0], row[1]) for row in losses(parent)[:14] + losses(second)[:6]]
    assert list(snapshot.parent.train) == wanted
    assert losses(third) == losses(second)[6:]


def test_a_file_is_left_out(corpus: Path, tmp_path: Path) -> None:
    parent = make("parent", corpus)
    assert in_a_process(parent) == 0
    made = branch.create(parent, 14, "without", {}, exclude=["noise.txt"])
    assert made.config().corpus == (str(corpus / "text.txt"),)
    assert in_a_process(made) == 0, made.log_path.read_text()
    assert [m[0] for m in losses(made)] == list(range(15, 31))
    by_path = branch.create(parent, 14, "by-path", {}, exclude=[str(corpus / "noise.txt")])
    assert by_path.config().corpus == made.config().corpus
    other = tmp_path / "other.txt"
    other.write_text(words(900, seed=4))
    assert branch.create(parent, 14, "other", {}, texts=[str(other)]).config().corpus == (str(other),)
    for exclude, why in ((["none.txt"], "has no file none.txt"), (["text.txt", "noise.txt"], "is empty")):
        with pytest.raises(UserError, match=why):
            branch.create(parent, 14, "wrong", {}, exclude=exclude)


def test_a_vocabulary_of_the_text_stays(corpus: Path) -> None:
    parent = make("parent", corpus, tokenizer="char", sample_prompt="the")
    assert in_a_process(parent) == 0
    made = branch.create(parent, 29, "made", {}, exclude=["noise.txt"])
    assert contents(made.path / "vocabulary") == contents(parent.path / "vocabulary")
    assert in_a_process(made) == 0, made.log_path.read_text()


def test_the_command(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent = make("parent", corpus)
    words_ = ["train", "--branch", "parent", "--step"]
    assert main([*words_, "3"]) == 2 and "has taken 0 steps" in capsys.readouterr().err
    assert in_a_process(parent) == 0
    assert main([*words_, "28", "--exclude", "noise.txt", "--clip", "0.5", "--no-start"]) == 0
    made = find("parent-at-28")
    assert capsys.readouterr().out.strip() == str(made.path)
    config = made.config()
    assert (config.settings.clip, config.parent, config.parent_step) == (0.5, "parent", 28)
    assert in_a_process(made) == 0
    assert main(["runs", "--json"]) == 0
    assert [
        (row["name"], row["parent"], row["parent_step"]) for row in json.loads(capsys.readouterr().out)["runs"]
    ] == [
        ("parent", None, None),
        ("parent-at-28", "parent", 28),
    ]
    for more, why in (
        (["--width", "32"], "model, whose width can't change"),
        (["--steps", "20"], "give more steps in total"),
        (["--resume", "--run", "parent"], "--resume has no effect on a branch"),
    ):
        assert main([*words_, "28", *more]) == 2
        assert why in capsys.readouterr().err
    assert main([*words_, "99"]) == 2 and "has taken 30 steps" in capsys.readouterr().err
    assert main(["train", "--branch", "parent"]) == 2 and "--step K" in capsys.readouterr().err
    assert (
        main(["train", "x", "--run", "y", "--exclude", "z"]) == 2 and "belongs to --branch" in capsys.readouterr().err
    )
    assert lines(made.path / "parent.jsonl")[-1]["step"] == 28
    assert main(["runs", "rename", "parent", "elder"]) == 0
    assert made.config().parent == "elder"


def average_of(checkpoint: Path) -> dict[str, Any]:
    """The average of the weights that a checkpoint holds, which is its model."""
    return dict(load_file(checkpoint / "model.safetensors"))


@pytest.mark.parametrize("fields", [{"arch": "modern"}, {"optimizer": "muon", "arch": "rope,gqa=1,window=8"}])
def test_a_branch_of_a_run_with_an_average_is_its_parent(corpus: Path, fields: dict[str, Any]) -> None:
    """From a kept checkpoint, from steps after one, and from the seed."""
    fields |= {"ema_decay": 0.9, "cautious_decay": "on", "steps": 20}
    parent = make("parent", corpus, **fields)
    assert in_a_process(parent) == 0, parent.log_path.read_text()
    for step in (14, 17, 0):
        made = branch.create(parent, step, f"from-{step}", {})
        assert in_a_process(made) == 0, made.log_path.read_text()
        assert losses(made) == losses(parent)[step:]
        assert contents(made.checkpoints()[-1][1]) == contents(parent.checkpoints()[-1][1])


def test_a_branch_with_another_optimizer_keeps_the_average(corpus: Path) -> None:
    """It begins as its parent's checkpoint of that step: the same average, the same weights that are trained."""
    parent = make("parent", corpus, ema_decay=0.9, steps=14)
    assert in_a_process(parent) == 0, parent.log_path.read_text()
    first = parent.path / "checkpoint-14"
    for fields in ({"optimizer": "muon", "steps": "15"}, {"learning_rate": "1e-3", "steps": "15"}):
        made = branch.create(parent, 14, branch.free_name("parent", 14), fields)
        assert in_a_process(made, ("half a line", 1)) == -9, made.log_path.read_text()
        begun = made.path / "checkpoint-14"
        assert average_of(begun).keys() == average_of(first).keys()
        for name, tensor in average_of(first).items():
            assert bool((average_of(begun)[name] == tensor).all()), name
        mine, theirs = (load_file(one / "optimizer.safetensors") for one in (begun, first))
        kept = {name for name in theirs if name.endswith(".trained")} | {"average.updates"}
        assert len(kept) > 1
        for name in kept:
            assert bool((mine[name] == theirs[name]).all()), name
        assert in_a_process(made) == 0, made.log_path.read_text()


def test_a_branch_may_drop_the_average_or_begin_one(corpus: Path) -> None:
    """It begins with the weights that the parent trains, not with their average."""
    for name, before, after in (("with", 0.9, "0"), ("without", 0.0, "0.9")):
        parent = make(name, corpus, ema_decay=before, steps=14)
        assert in_a_process(parent) == 0, parent.log_path.read_text()
        same = branch.create(parent, 14, f"{name}-same", {"steps": "16"})
        made = branch.create(parent, 14, f"{name}-branch", {"ema_decay": after, "steps": "16"})
        assert in_a_process(same) == 0, same.log_path.read_text()
        assert in_a_process(made, ("half a line", 1)) == -9, made.log_path.read_text()
        assert in_a_process(made) == 0, made.log_path.read_text()
        assert [row[:3] for row in losses(made)] == [
            row[:3] for row in losses(same)
        ]  # of the steps, not of evaluations
        assert ("average.updates" in load_file(made.path / "checkpoint-16" / "optimizer.safetensors")) == (after != "0")


def test_a_parent_that_is_renamed_while_its_branch_is_prepared_is_found(corpus: Path) -> None:
    parent = make("parent", corpus)
    assert in_a_process(parent) == 0
    made = branch.create(parent, 28, "made", {})
    preparing = Worker(made)  # has read its config
    rename(parent, "elder")
    assert process.work(preparing) == 0
    assert made.status().state == "finished" and losses(made) == losses(find("elder"))[28:]


def test_a_branch_of_a_parent_that_is_another_run_now_is_refused(corpus: Path) -> None:
    parent = make("parent", corpus)
    assert in_a_process(parent) == 0
    made = branch.create(parent, 28, "made", {})
    parent.delete()
    other = make("parent", corpus, seed=5)
    assert in_a_process(other) == 0
    assert in_a_process(made) != 0
    said = made.status().message
    assert "is another one than when run made was made" in said and "start a new branch" in said
    assert not made.checkpoints()
