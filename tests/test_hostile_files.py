"""Files and folders that a person may bring, found by reading the code: each a right answer or one line, at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from tests import HANG
from tests.training.run_helpers import make, words
from tui_llm import cli
from tui_llm.common import files, paths, storage
from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.llm.adapters.gguf_header import read_gguf
from tui_llm.llm.data import answer_rows, prompts
from tui_llm.llm.formats import archive
from tui_llm.llm.hub import model_list, pull
from tui_llm.llm.model import steering_file
from tui_llm.llm.tokens import catalog, closed, closed_files
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.vocabulary_files import read_tokenizer_json
from tui_llm.llm.tokens.vocabulary_folder import load_folder
from tui_llm.training.run import branch, head_readings, health, pin_readings
from tui_llm.training.run.config import parse_config
from tui_llm.training.run.curve import Envelope
from tui_llm.training.run.foreign.log_curves import LogCurves
from tui_llm.training.run.foreign.text_logs import add_line
from tui_llm.training.run.metrics import LARGEST_FLOAT, parse_metric
from tui_llm.training.run.pins import change
from tui_llm.training.run.run import Run

SPARSE = 10 << 30  # bytes of a file that takes none on the disk


def sparse(path: Path, begin: bytes, size: int = SPARSE, end: bytes = b"") -> Path:
    path.write_bytes(begin)
    os.truncate(path, size)
    if end:
        with path.open("r+b") as file:
            file.seek(size)
            file.write(end)
    return path


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["arcee", "starcoder2", "nanochat"])
@pytest.mark.parametrize("value", ["[]", "{}", "1", "null"])
def test_one_odd_model_hides_no_other(kind: str, value: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "models" / "odd"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"model_type": "{kind}", "hidden_act": {value}}}')
    assert cli.main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows["odd"]["problem"] and "\n" not in rows["odd"]["problem"] and rows["nano"]["problem"] is None
    assert cli.main(["logits", "hi", "--model", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_model_that_cannot_be_described_hides_no_other(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "models" / "odd").mkdir(parents=True)
    (home / "models" / "odd" / "config.json").write_text('{"model_type": "gpt2"}')
    known = model_list._sizes

    def sizes(folder: Path) -> Any:
        if folder.name == "odd":
            raise ZeroDivisionError("what nobody thought of")
        return known(folder)

    monkeypatch.setattr(model_list, "_sizes", sizes)
    assert cli.main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert "what nobody thought of" in rows["odd"]["problem"] and rows["nano"]["problem"] is None


@pytest.mark.parametrize(
    ("begin", "line"),
    [
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, SPARSE - 100), "texts have more"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 10**8), "settings"),
        (b"GGUF" + struct.pack("<IQQ", 3, 10**8, 0), "tensors"),
    ],
    ids=["a key of 10 GB", "a hundred million settings", "a hundred million tensors"],
)
def test_a_gguf_header_is_not_read_beyond_its_bounds(begin: bytes, line: str, tmp_path: Path) -> None:
    path = sparse(tmp_path / "x.gguf", begin)
    used = time.thread_time()
    with pytest.raises(UserError, match=line):
        read_gguf(path)
    assert time.thread_time() - used < 1


@pytest.mark.parametrize("zip64", [False, True])
def test_an_archives_directory_is_not_read_beyond_its_bounds(zip64: bool, tmp_path: Path) -> None:
    length = 4 << 30 if zip64 else (4 << 30) - 2
    record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 1, 1, length, 100) if zip64 else b""
    locator = struct.pack("<IIQI", 0x07064B50, 0, SPARSE, 1) if zip64 else b""
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, min(length, 0xFFFFFFFF), 0, 0)
    path = sparse(tmp_path / "ckpt.pt", b"PK\3\4", end=record + locator + end)
    used = time.thread_time()
    with pytest.raises(UserError, match="directory has"):
        archive._check_zip(path)
    assert time.thread_time() - used < 1
    sparse(path, b"PK\3\4", end=record + locator + end + b"comment")
    with pytest.raises(UserError, match="does not end with a directory"):
        archive._check_zip(path)


def test_a_pull_that_fails_at_its_end_leaves_the_older_revision(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, waiting = paths.pulled_model("a/b"), paths.models_dir() / ".pulling"
    part = waiting / "new"
    for place, text in ((folder, "old"), (part, "new")):
        place.mkdir(parents=True)
        (place / "config.json").write_text(text)
    replace = storage.replace

    def failing(source: Path, target: Path) -> None:
        if source == part:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "replace", failing)
        with pytest.raises(OSError, match="No space"):
            pull._put(part, folder, waiting)
    assert (folder / "config.json").read_text() == "old"
    replace(folder, waiting / f"{folder.name}.old")  # as after a kill between the two renames
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        pull.pull("a/b")
    assert (folder / "config.json").read_text() == "old"
    pull._put(part, folder, waiting)
    assert (folder / "config.json").read_text() == "new"


def test_a_steering_vector_of_nobody(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such user"):
        steering_file.load("~nobody-at-all/d.safetensors")


# ── vocabularies ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "tokens", "line"),
    [
        ("char", ["a", "[PAD]"], "no character"),
        ("char", ["a", ""], "no character"),
        ("char", [END_OF_TEXT, "a"], "no character"),
        ("char", ["a", "\ud800"], "no character"),
        ("word", ["a", "\udfff"], "no text"),
    ],
)
def test_a_closed_vocabulary_with_a_token_of_another_kind(
    kind: str, tokens: list[str], line: str, tmp_path: Path
) -> None:
    closed_files.save(kind, ["a", "b"], None, tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}))
    with pytest.raises(UserError, match=line):
        closed.load(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, END_OF_TEXT: 2}))
    whole = closed.load(tmp_path)
    assert whole is not None and whole.size == 3


@pytest.mark.parametrize("content", [[], {}, 1, None])
def test_added_tokens_of_any_kind(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
    path.write_text(json.dumps({"model": model, "added_tokens": [{"id": 9, "content": content}]}))
    assert read_tokenizer_json(path) == [b"a", b"b"]


@pytest.mark.parametrize("steps", [{"a": 1}, 5, True, "x", []])
def test_pre_tokenizers_of_any_kind(steps: Any, tmp_path: Path) -> None:
    whole = {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError) as caught:
        load_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_mirror_whose_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUI_LLM_VOCABULARY_MIRROR", "http://localhost/my vocab")
    with pytest.raises(UserError, match="can't be downloaded"):
        catalog._download("cl100k_base")


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_prompts_in_one_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "LONGEST", 1 << 20)
    path = tmp_path / "text8.txt"
    path.write_text("first\n" + "word " * (1 << 20))
    with pytest.raises(UserError, match=r"line 2 has more than 1,048,576 characters"):
        list(prompts.read(path))


def test_more_prompts_than_a_run_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_rows, "MOST", 3)
    encoder = answer_rows.AnswerEncoder(load_folder(paths.shipped_models_dir() / "nano"), None, 100, "nano", "many.txt")
    with pytest.raises(UserError, match="more than 3 prompts"):
        encoder.prompts((prompts.Prompt(f"a {number}") for number in range(5)), 4)


def test_answers_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui_llm.common.memory.free_bytes", lambda: 1 << 30)
    with pytest.raises(UserError, match="needs about"):
        answer_rows.load(sparse(tmp_path / "answers.safetensors", b""), 10)


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "text.txt").write_text(words(500))
    return make("one", tmp_path / "text.txt", steps=20)


def metric(step: int, loss: object) -> str:
    return f'{{"step": {step}, "loss": {loss}, "lr": 0.1, "grad_norm": 1.0, "tokens_per_second": 1.0}}\n'


def test_losses_that_no_run_computes_end_no_list(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for large in (1e200, -1e200, 1.7e308, 3.5e38):
        assert parse_metric(metric(1, large).encode()) is None
    for fine in (3.4e38, LARGEST_FLOAT, -1.0):
        found = parse_metric(metric(1, fine).encode())
        assert found is not None and found.loss == fine
    assert parse_metric(metric(1, "Infinity").encode()) is not None  # a run that diverged
    run.metrics_path.write_text("".join(metric(step, 3.4e38 if step % 2 else 1.0) for step in range(1, 41)))
    for arguments in (["runs"], ["runs", "--json"]):
        assert cli.main(arguments) == 0
        assert "one" in capsys.readouterr().out


def test_readings_without_a_token_and_losses_beyond_float32(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for reading in (
        {"prompt": "a", "entropy": 1.0},
        {"prompt": "a", "entropy": 1.0, "top": []},
        {"prompt": "a", "target": "b", "tokens": [[1, "62", 1.7e308, 0.0, 1], [1, "62", 1.7e308, 0.0, 1]]},
    ):
        line = json.dumps({"step": 1, "probes": [reading]})
        assert (pin_readings.parse(line.encode()) is None) == ("tokens" in reading)
        run.pin_readings_path.write_text(line + "\n")
        for more in ([], ["--json"]):
            assert cli.main(["probes", run.name, *more]) in (0, 2)
            assert "internal" not in capsys.readouterr().err


def test_counts_of_hundreds_of_digits(run: Run) -> None:
    raw = json.loads((run.path / "config.json").read_text())
    for name in ("parent_tokens", "parent_step"):
        with pytest.raises(UserError, match="not a run's config"):
            parse_config({**raw, name: int("9" * 400)}, run.path / "config.json")


def test_a_log_with_losses_beyond_float32(tmp_path: Path) -> None:
    curves, envelope = LogCurves(""), Envelope()
    for step, loss in ((4096, "1e308"), (4097, "1.7e308"), (4098, "1.2e308"), (4098, "1e308"), (4099, "2.5")):
        add_line(f"iter {step}: loss {loss}, time 1.00ms\n".encode(), curves)
        envelope.add(step, float(loss))
        envelope.cut(step - 1)
    add_line(b"Total batch size 99,999,999,999,999,999 => x\n", curves)
    add_line(b"Estimated FLOPs per token: 1e308\n", curves)
    assert curves.points("loss") == ((4099, 2.5),) and (curves.step_tokens, curves.flops_per_token) == (None, None)


def test_what_a_list_of_runs_reads_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = {"kind": "spike", "since": 1, "evidence": "x"}
    lines = [json.dumps({**alarm, "step": step}) for step in range(1, 2001)]
    health.alarms_path(run).write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(health, "NEWEST", 10_000)
    found = health.recorded(run)
    assert 50 < len(found) < 500 and found[-1].step == 2000
    scores = [0.5, 0.25]
    value = {"layers": 1, "heads": 2, **dict.fromkeys(head_readings.SCORES, scores)}
    run.heads_path.write_text("".join(json.dumps({"step": step, **value}) + "\n" for step in (1, 3, 2)))
    newest = head_readings.newest(run)
    assert newest is not None and newest.step == 3


def test_a_branch_reads_its_parents_curve_line_by_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run.path / branch.NAME
    path.write_text("".join(metric(step, step / 10) for step in range(1, 301)))
    assert branch._points(path, 200)[-1] == (200, 20.0)


def test_a_run_is_not_deleted_while_its_worker_starts(run: Run) -> None:
    run.write_status("starting", "starting the worker")
    with pytest.raises(UserError, match="is being trained; stop it first"):
        run.delete()
    assert run.exists()
    run.write_status("failed", "it did not start")
    run.delete()
    assert not run.path.exists()


def test_a_worker_of_a_deleted_run_makes_no_folder_anew(run: Run) -> None:
    from tui_llm.training.worker import process

    path = run.path
    run.delete()
    assert process.main([str(path)]) == 2
    assert not path.exists()


def _ask(path: str, name: str) -> None:
    for number in range(10):
        Run(Path(path)).write_control(**{name: number})
        change(Path(path) / "pins.json", [Pin(f"{name} {number % 3}")])


def test_requests_of_two_processes_at_once_are_both_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCKED", HANG)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_ask, args=(str(run.path), name)) for name in ("save", "batch", "row")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    asked = run.control()
    assert [asked[name] for name in ("save", "batch", "row")] == [9, 9, 9]
    assert len(json.loads((run.path / "pins.json").read_text())["pins"]) == 9
