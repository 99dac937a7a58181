"""Fine-tuning: a run that starts from a model's weights, vocabulary and shape."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.run_helpers import TINY, contents, losses, make, words, work
from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint, model_config
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.llm.tokens.vocabulary_folder import save_folder
from tui_llm.training.plan import launch
from tui_llm.training.plan.start import fit
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import from_fields

# A shape that no settings describe: a narrow MLP, an untied output head, an embedding with padding rows.
SHAPE = GPTConfig(vocabulary=264, context=32, layers=1, heads=2, width=16, inner=24, tied=False)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    torch.manual_seed(5)
    checkpoint.save(GPT(SHAPE), folder, end_of_text=256)
    save_folder(byte_level(), folder)
    return folder


def begin(name: str, text: Path, model: Path, **fields: object) -> Run:
    settings = fit({"from_model": str(model), "block_size": 16, **fields}, TINY, SHAPE)
    return launch.create(name, [str(text)], settings, preset="toy", device="cpu", model=model)


def test_it_starts_from_the_models_weights_in_its_shape(text: Path, model: Path) -> None:
    run = begin("run", text, model, learning_rate=0.0, min_learning_rate=0.0, steps=2)
    assert work(run) == 0, run.log_path.read_text()
    made, began = checkpoint.load(run.checkpoints()[-1][1]), checkpoint.load(model)
    assert made.config == SHAPE
    for name, tensor in began.state_dict().items():
        assert torch.equal(made.state_dict()[name], tensor), name


def test_a_run_continues_bit_for_bit_after_its_start_model_is_deleted(text: Path, model: Path) -> None:
    unbroken, broken = begin("unbroken", text, model, dropout=0.1), begin("broken", text, model, dropout=0.1)
    shutil.rmtree(model)
    assert work(unbroken) == 0, unbroken.log_path.read_text()
    assert work(broken, ("half a line", 3)) == -9  # before the first checkpoint
    assert not broken.checkpoints()
    assert work(broken, ("half a line", 14)) == -9
    assert work(broken) == 0
    assert losses(broken) == losses(unbroken)
    assert contents(broken.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])
    assert losses(unbroken)[-1][1] < losses(unbroken)[0][1] - 1


def test_a_run_starts_from_another_runs_last_checkpoint(text: Path) -> None:
    first = make("first", text)
    assert work(first) == 0
    settings = fit({"from_model": "first", "learning_rate": 0.0}, TINY, GPTConfig(257, 16, 1, 2, 16))
    second = launch.create(
        "second", [str(text)], settings, preset="toy", device="cpu", model=first.checkpoints()[-1][1]
    )
    assert work(second) == 0
    # the first run's last validation loss is the second run's first
    assert losses(second)[0][4] == losses(first)[-1][4]


def test_what_contradicts_the_model_is_refused(model: Path) -> None:
    for field, value in (("layers", 3), ("heads", 4), ("width", 32), ("tokenizer", "gpt2"), ("block_size", 64)):
        with pytest.raises(UserError, match=field.split("_")[0]):
            fit({"from_model": "m", field: value}, TINY, SHAPE)
    agreed = fit({"from_model": "m", "layers": "1", "width": 16}, TINY, SHAPE)
    assert (agreed.block_size, agreed.tokenizer, agreed.from_model) == (32, "m", "m")


def test_an_invalid_start_model_leaves_no_run(text: Path, model: Path) -> None:
    (model / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"no merges\.txt"):
        begin("run", text, model)
    assert not (paths.runs_dir() / "run").exists()
    with pytest.raises(ValueError, match="or neither"):
        launch.create("run", [str(text)], from_fields({"from_model": "nano"}, TINY), preset="toy")


def test_as_typed(text: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train", "--from", "nano", "--cost", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parameters"] == model_config.read_config(paths.shipped_models_dir() / "nano").parameters()
    assert main(["train", str(text), "--run", "r", "--from", "nano", "--width", "64"]) == 2
    assert "contradicts the model nano" in capsys.readouterr().err

    monkeypatch.chdir(model.parent)
    options = ["--preset", "toy", "--block-size", "16", "--batch-size", "2", "--steps", "3", "--device", "cpu"]
    code = main(["train", str(text), "--run", "r", "--from", "./model", *options])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.startswith(f"{SHAPE.parameters():,} parameters") and "finished" in out
    assert main(["train", "--run", "r", "--resume", "--from", "./model", "--cost"]) == 0
    assert main(["train", "--run", "r", "--resume", "--from", "./model", "--steps", "4"]) == 0
    capsys.readouterr()
    assert main(["train", "--run", "r", "--resume", "--from", "nano"]) == 2
    assert "another from;" in capsys.readouterr().err
