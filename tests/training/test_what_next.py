"""Commands say what to do next: after training, and where a text or a model is not there. A cost needs its text."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.training.run_helpers import SMALL_SHAPE, make, words
from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.hub import lookup
from tui_llm.training.run.run import Run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def commands(out: str) -> dict[str, list[str]]:
    """What is said → the arguments of the command that is named for it."""
    found = (line.split(": tui-llm ", 1) for line in out.splitlines() if ": tui-llm " in line)
    return {what: shlex.split(command) for what, command in found}


@pytest.mark.parametrize("name", ["mine", "nano"])  # a shipped model is called nano, too
def test_training_ends_with_commands_that_work(text: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(
        capsys, "train", str(text), "--run", name, *SMALL_SHAPE, "--steps", "2", "--warmup-steps", "1"
    )
    assert code == 0, err
    found = commands(out)
    assert out.splitlines()[-1].startswith("let it write: ") and found.keys() == {"open it", "let it write"}
    assert found["open it"][0] == "--model"
    opened = lookup.find(found["open it"][1])
    assert (opened.kind, opened.name, opened.step) == ("run", name, 2)
    code, _, err = said(capsys, *found["let it write"], "--max-tokens", "1", "--json")
    assert code == 0, err
    assert main(["train", "--run", name, "--resume", "--steps", "3", "--json"]) == 0
    assert not commands(capsys.readouterr().out), "programs get none"


def test_a_run_that_was_stopped_is_continued(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def followed(run: Run, **_more: object) -> int:
        run.write_status("stopped", steps=9, step=0)
        return 0

    monkeypatch.setattr("tui_llm.training.plan.launch.start", lambda run: None)
    monkeypatch.setattr("tui_llm.training.plan.follow.follow", followed)
    assert main(["train", str(text), "--run", "r", *SMALL_SHAPE, "--steps", "9"]) == 0
    found = commands(capsys.readouterr().out)
    assert found == {"continue it": ["train", "--resume", "--run", "r"]}, "without a checkpoint nothing can be opened"


@pytest.mark.parametrize(
    "more", [(), ("--measure",), ("--from", "nano"), ("--from", "nano", "--preference"), ("--json",)]
)
def test_the_cost_of_a_text_that_is_not_there(capsys: pytest.CaptureFixture[str], more: tuple[str, ...]) -> None:
    code, out, err = said(capsys, "train", "none.jsonl", "--cost", *more)
    assert (code, out) == (2, "") and "there is no file or folder" in err and err.count("\n") == 1


def test_the_cost_of_what_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zeros.txt").write_bytes(bytes(100))
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    for name, words_ in (("zeros.txt", "zeros.txt"), ("pairs.jsonl", "add --preference")):
        code, out, err = said(capsys, "train", str(tmp_path / name), "--cost")
        assert (code, out) == (2, "") and words_ in err and err.count("\n") == 1
    code, out, err = said(capsys, "train", "stories", "--preset", "toy", "--cost")
    assert code == 0 and "parameters" in out, "a text by name is not downloaded or written first"


def test_a_text_to_evaluate_on_is_not_called_one_to_train_on(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "evaluate", "first", "--model", "nano")
    assert (
        (code, out) == (2, "") and "there is no file or folder" in err and err.endswith("; give the path of a text\n")
    )


@pytest.mark.parametrize("name", ["gpt2", "distilgpt2", "openai-community/gpt2"])
def test_a_model_that_is_not_pulled_yet_names_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "logits", "a", "--model", name)
    assert (code, out) == (2, "") and f"`tui-llm models pull {name}` downloads" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["./gpt2", "a/b/c", "~/x", "Gpt-Two"])
def test_what_the_hub_can_not_have_is_not_pulled(name: str) -> None:
    with pytest.raises(UserError) as raised:
        lookup.find(name)
    assert "pull" not in str(raised.value)


def test_a_run_that_is_called_as_a_model_of_the_hub_is_opened(text: Path) -> None:
    run = make("gpt2", text)
    assert paths.runs_dir() in run.path.parents
    with pytest.raises(UserError) as raised:
        lookup.find("gpt2")
    assert "pull" not in str(raised.value), "the run is found: it has no checkpoint yet"


@pytest.mark.parametrize(("pairs", "steps"), [(1, 1), (2, 2)])
def test_counts_of_fine_tuning_have_the_right_plural(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pairs: int, steps: int
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"question": f"Who {at}?", "answer": "Tim."}) + "\n" for at in range(pairs)))
    code, out, err = said(
        capsys, "train", str(file), "--from", "nano", "--instruct", "--run", "tuned", "--steps", str(steps)
    )
    assert code == 0, err
    many = "s" * (pairs > 1)
    assert out.startswith(f"{steps} step{many} on {pairs} pair{many}, loss on ")
    card = next(paths.models_dir().glob("tuned/README.md")).read_text()
    assert f"after {steps} step{many} of supervised fine-tuning on {pairs} instruction–answer pair{many}: " in card
