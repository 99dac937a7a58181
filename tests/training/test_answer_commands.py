"""`tui-llm train --preference` and `--reward`: what is refused in one line before anything is written, and a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.answer_helpers import begin, model_folder, settings, write_pairs, write_prompts
from tests.training.run_helpers import work
from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.adapters.chat import INSTRUCT, template_of
from tui_llm.llm.data import answer_rows
from tui_llm.llm.model import checkpoint
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan import launch
from tui_llm.training.run.run import ANSWERS, find

GOOD = {"prompt": "Say ", "chosen": "yes", "rejected": "no"}
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Yo"}],
        "rejected": [{"role": "assistant", "content": "No"}]}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of an error; no run was made."""
    assert main(("train", *arguments, "--run", "x", "--no-start")) == 2
    captured = capsys.readouterr()
    assert not captured.out and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert not paths.runs_dir().exists() or not list(paths.runs_dir().iterdir())
    return captured.err


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({**GOOD, "rejected": "yes"}, "are the same"),
        ({**GOOD, "chosen": " \n"}, "the chosen answer is empty"),
        ({**GOOD, "prompt": ""}, "the prompt is empty"),
        (
            {**GOOD, "chosen": "a" * 40},
            "the prompt with its 'chosen' answer has 44 tokens; rows of this run have 32 at most",
        ),
        ({"prompt": "a", "chosen": "b"}, "no field 'rejected'"),
        ({**GOOD, "chosen": 3}, "'chosen' is neither text nor a list"),
        (["a"], "this is not a pair"),
        (CHAT, "has no chat template"),
        ("{broken", "is not valid JSON"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path, row: object, why: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    bad = row if isinstance(row, str) else json.dumps(row)
    path.write_text(f"{json.dumps(GOOD)}\r\n\r\n{bad}\r\n", "utf-8-sig")
    error = refused(capsys, str(path), "--from", str(model), "--preference")
    assert "pairs.jsonl line 3" in error and why in error


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["PAIRS", "--preference"], "name it: --from nano"),
        (["--preference", "--from", "MODEL"], "needs a file of pairs"),
        (["TEXT", "--preference", "--from", "MODEL"], "line 1 is not valid JSON"),
        (["ONE", "--preference", "--from", "MODEL"], "give 2 different rows or more"),
        (["PAIRS", "PAIRS", "--preference", "--from", "MODEL"], "from one file, not 2"),
        (["stories", "--preference", "--from", "MODEL"], "is a corpus of text"),
        (["PAIRS", "--from", "MODEL"], "has preference pairs; add --preference"),
        (["PAIRS", "--preference", "--reward", "full-stop", "--from", "MODEL"], "two objectives"),
        (["--reward", "full-stop"], "name it: --from nano"),
        (["--reward", "", "--from", "MODEL"], "there is no reward"),
        (["--reward", "matches:(", "--from", "MODEL"], "is not a regular expression"),
        (["--reward", "hand", "--from", "MODEL"], "can't be scored by hand"),
        (["--reward", "full-stop", "--from", "MODEL", "--block-size", "20"], "the sample prompt"),
        (
            ["--reward", "full-stop", "--from", "MODEL", "--nproc", "2", "--sample-prompt", "a"],
            "in one process; leave out --nproc",
        ),
        (["PAIRS", "--preference", "--from", "MODEL", "--samples", "4"], "samples has no effect"),
        (["PAIRS", "--preference", "--from", "MODEL", "--beta", "0"], "beta is 0"),
        (["PAIRS", "--preference", "--from", "MODEL", "--compile", "on"], "torch.compile is for pre-training only"),
        (["PAIRS", "--preference", "--from", "MODEL", "--dropout", "0.1"], "dropout is for pre-training only"),
        (
            ["--reward", "full-stop", "--from", "MODEL", "--dropout", "0.1", "--cost"],
            "dropout is for pre-training only",
        ),
        (["TEXT", "--from", "MODEL", "--beta", "0.2"], "beta has no effect in a run that learns text"),
    ],
)
def test_what_contradicts_the_objective_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path, arguments: list[str], why: str
) -> None:
    text, one = tmp_path / "text.txt", tmp_path / "one.jsonl"
    text.write_text("Once upon a time. " * 40)
    one.write_text((json.dumps(GOOD) + "\n") * 3)
    names = {"PAIRS": write_pairs(tmp_path / "pairs.jsonl"), "TEXT": text, "ONE": one, "MODEL": model}
    assert why in refused(capsys, *(str(names.get(one, one)) for one in arguments))


def test_a_reward_run_from_the_command_line_and_its_export(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt")
    common = ["--from", str(model), "--device", "cpu", "--precision", "fp32", "--json", "--run", "scored"]
    sizes = ["--steps", "3", "--eval-every", "2", "--checkpoint-every", "2", "--samples", "3", "--answer-tokens", "5"]
    assert main(["train", str(prompts), "--reward", "count:e", *sizes, *common, "--no-start"]) == 0
    run = find("scored")
    s = run.config().settings
    assert (s.objective, s.reward, s.samples, s.weight_decay, s.batch_size) == ("reward", "count:e", 3, 0.0, 2)
    assert work(run) == 0, run.log_path.read_text()
    assert (
        "4 prompts" not in run.log_path.read_text()
        and "3 prompts to train on, 1 to evaluate" in run.log_path.read_text()
    )
    capsys.readouterr()
    assert main(["runs", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["runs"][0]
    assert row["objective"] == "reward" and row["reward"] is not None and row["val_kl"] is not None
    assert main(["runs"]) == 0 and f"reward {row['reward']:.3f}" in capsys.readouterr().out
    assert main(["probes", "scored", "--json"]) == 0
    assert [one["step"] for one in json.loads(capsys.readouterr().out)["pins"][0]["moments"]] == [0, 1, 2, 3]
    assert main(["batch", "scored"]) == 0
    assert "mean of 6 answers: " in (out := capsys.readouterr().out) and "advantage" in out and "'The " in out
    folder = tmp_path / "exported"
    assert main(["export", "scored", str(folder)]) == 0
    theirs, ours = AutoModelForCausalLM.from_pretrained(folder).eval(), checkpoint.load(run.checkpoints()[-1][1])
    ids = torch.tensor([[84, 104, 101, 32]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids), atol=1e-4, rtol=1e-4)
    assert "count:e" in (card := (folder / "README.md").read_text()) and "step 3 of 3" in card
    # what is a folder already is exported as well: a copy that was kept has no run
    again = tmp_path / "again"
    assert main(["export", str(folder), str(again)]) == 0 and "exported to the model folder" in capsys.readouterr().out
    for name in ("model.safetensors", "README.md", "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_the_worker_reads_the_pairs_itself_where_the_form_started_the_run(tmp_path: Path, model: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    run = begin("run", model, pairs, "preference", tokenized=False, steps=2)
    assert not (run.path / ANSWERS).exists()
    assert work(run) == 0, run.log_path.read_text()
    rows = answer_rows.load(run.path / ANSWERS, 257)
    assert len(rows) == 24 and rows.lines.tolist() == list(range(1, 25))
    pairs.write_text(json.dumps(GOOD) + "\n")
    with pytest.raises(UserError, match="1 different pairs"):
        begin("other", model, pairs, "preference", tokenized=False)
    (run.path / ANSWERS).write_bytes(b"\0" * 100)
    launch.set_steps(run, 4)
    assert work(run) == 1 and "is damaged" in run.status().message


def test_chat_rows_are_written_in_the_models_template(tmp_path: Path, model: Path) -> None:
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "chat_template": INSTRUCT}))
    path = tmp_path / "pairs.jsonl"
    other = {"prompt": "Ho", "chosen": [{"role": "user", "content": "Ho"}, {"role": "assistant", "content": "A"}],
             "rejected": [{"role": "user", "content": "Ho"}, {"role": "assistant", "content": "B"}]}  # fmt: skip
    path.write_text(f"{json.dumps(CHAT)}\n{json.dumps(other)}\n")
    run = begin("run", model, path, "preference", steps=2)
    assert work(run) == 0, run.log_path.read_text()
    rows, ids = answer_rows.load(run.path / ANSWERS, 257), byte_level().encode
    assert rows.prompts.row(0) == ids("Hi\n") and rows.prompts.row(1) == ids("Ho\n")
    assert rows.chosen.row(0) == [*ids("Yo"), 256] and rows.rejected.row(1) == [*ids("B"), 256]
    assert main(["export", "run", str(tmp_path / "exported")]) == 0
    for folder in (run.checkpoints()[-1][1], tmp_path / "exported"):  # the trained model is still a chat model
        template = template_of(folder, "run")
        assert template is not None and template.parts("Hi") == ("", "Hi", "\n")


def test_a_resumed_run_keeps_its_objective(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path) -> None:
    run = begin("run", model, write_pairs(tmp_path / "pairs.jsonl"), "preference")
    assert main(["train", "--resume", "--run", "run", "--reward", "full-stop", "--no-start"]) == 2
    error = capsys.readouterr().err
    assert "has no effect" in error or "another" in error
    assert main(["train", "--resume", "--run", "run", "--beta", "0.5", "--no-start"]) == 2
    error = capsys.readouterr().err
    assert "was started with another beta; resume it without, or start a new run" in error
    assert main(["train", "--resume", "--run", "run", "--steps", "14", "--no-start"]) == 0
    assert run.config().settings == settings(model, "preference", steps=14)
