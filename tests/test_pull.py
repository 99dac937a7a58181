"""Pulling models from a local hub that truncates, sends wrong content, refuses, or is unreachable."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tests.fake_hub import Hub, Repository, hub
from tui_llm.cli import main
from tui_llm.common import paths, storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import SPARE
from tui_llm.facts.model import ModelInfo
from tui_llm.llm.hub import lookup, model_list, pull
from tui_llm.llm.tokens import vocabulary_folder

REPOSITORY = Path(__file__).resolve().parents[1]
NANO = paths.shipped_models_dir() / "nano"
DISTIL = "distilbert/distilgpt2"
PROMPT = "The cat sat on the"


@pytest.fixture(scope="session")
def distil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes it, with distilgpt2's architecture, smaller and with random weights."""
    folder = tmp_path_factory.mktemp("distil")
    torch.manual_seed(1)
    vocabulary = vocabulary_folder.load_folder(NANO)
    config = GPT2Config(
        vocab_size=vocabulary.size, n_positions=64, n_layer=6, n_head=4, n_embd=64, initializer_range=0.3
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    vocabulary_folder.save_folder(vocabulary, folder)
    (folder / "README.md").write_text("# distil\n[/] \x1b[31mred")
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with hub() as made:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", made.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield made


@pytest.fixture
def repository(server: Hub, distil: Path) -> Repository:
    made = server.repositories[DISTIL] = Repository.of(distil)
    made.files |= {"pytorch_model.bin": b"pickle", "evil.py": b"raise SystemExit", "../up.json": b"{}"}
    return made


def refused(name: str = "distilgpt2", revision: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        pull.pull(name, revision)
    said = str(caught.value)
    assert "\n" not in said
    return said


def leftovers() -> list[str]:
    top = paths.models_dir()
    return sorted(p.name for p in top.rglob("*") if p.name != ".pulling" and not p.name.endswith(".lock"))


def command(server: Hub, *words: str, home: Path, stderr: int = subprocess.PIPE, **more: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.address,
        "TUI_LLM_HOME": str(home),
        "HF_TOKEN": "hf_of_a_test",
        **more,
    }
    environment["HF_HUB_OFFLINE"] = more.get("HF_HUB_OFFLINE", "0")
    return subprocess.Popen(
        [sys.executable, "-m", "tui_llm", "models", *words], cwd=REPOSITORY, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=stderr,
    )  # fmt: skip


def test_the_only_older_revision_is_kept_until_a_newer_one_is_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, waiting = paths.pulled_model("gpt2"), paths.models_dir() / ".pulling"
    old, part = waiting / "gpt2.old", waiting / "gpt2@123456789012"
    for path, text in ((old, "old"), (part, "new")):  # as a pull leaves them that is killed between its two renames
        path.mkdir(parents=True)
        (path / "config.json").write_text(text)
    replace = storage.replace

    def refuse(source: Path, to: Path) -> None:
        if source == part:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(to))
        replace(source, to)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "replace", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            pull._put(part, folder, waiting)
    assert (folder / "config.json").read_text() == "old"
    pull._put(part, folder, waiting)
    assert (folder / "config.json").read_text() == "new"
    assert not old.exists()


def test_an_older_revision_that_was_not_deleted_is_deleted_by_the_next_pull() -> None:
    folder, old = paths.pulled_model("gpt2"), paths.models_dir() / ".pulling" / "gpt2.old"
    for path in (folder, old):
        path.mkdir(parents=True)
        (path / "model.safetensors").write_text(path.name)
    pull._recover("openai-community/gpt2")
    assert old.is_dir(), "what is in the folder was not pulled, so the older revision may be all that there is"
    (folder / "pulled.json").write_text('{"repository": "openai-community/gpt2"}')
    pull._recover("openai-community/gpt2")
    assert not old.exists()
    assert (folder / "model.safetensors").read_text() == "gpt2"


def test_a_pulled_model_predicts_as_transformers(
    repository: Repository, distil: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[pull.PullProgress] = []
    made = pull.pull("distilgpt2", report=seen.append)
    assert made.fresh
    assert made.name == "distilgpt2"
    assert seen[-1].done == seen[-1].total == made.size
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    folder = paths.models_dir() / "distilgpt2"
    assert {p.name for p in folder.iterdir()} == {p.name for p in distil.iterdir()} | {
        "pulled.json"
    }  # neither pickles nor code
    capsys.readouterr()
    assert main(["logits", PROMPT, "--model", "distilgpt2", "--top", "4096", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["candidates"]
    ids = AutoTokenizer.from_pretrained(folder).encode(PROMPT)
    with torch.no_grad():
        wanted = AutoModelForCausalLM.from_pretrained(distil)(torch.tensor([ids])).logits[0, -1]
    assert len(rows) == 4096
    for row in rows:
        assert row["logit"] == pytest.approx(float(wanted[row["id"]]), abs=1e-4)
    assert not pull.pull("distilgpt2").fresh
    (info,) = [row for row in model_list.every() if row.name == "distilgpt2"]
    assert (info.kind, info.pulled, info.context, info.problem) == ("model", True, 64, None)
    assert info.parameters == sum(p.numel() for p in GPT2LMHeadModel.from_pretrained(distil).parameters())
    assert DISTIL in info.origin


def test_the_command_with_a_token_and_a_mirror(
    server: Hub,
    repository: Repository,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.repositories["some-one/Model.v2"] = repository
    done = command(server, "pull", "some-one/Model.v2", "--revision", "v1", "--json", "--progress", home=tmp_path / "h")
    out, err = done.communicate()
    assert done.returncode == 0, err
    made = json.loads(out)
    assert made["name"] == "some-one/Model.v2"
    progress = [json.loads(line) for line in err.splitlines()]
    assert {"doing", "done", "total"} == set(progress[0])
    asked = {token for path, token in server.tokens if "some-one" in path}
    assert asked == {"Bearer hf_of_a_test"}
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path / "h"))
    assert lookup.find("some-one/Model.v2").folder == Path(made["folder"])
    assert main(["models"]) == 0
    assert "some-one/Model.v2" in capsys.readouterr().out
    assert main(["models", "info", "some-one/Model.v2"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "␛[31mred" in said
    assert main(["models", "delete", "some-one/Model.v2"]) == 2  # no terminal for the question
    assert main(["models", "delete", "some-one/Model.v2", "--yes"]) == 0
    assert not Path(made["folder"]).exists()
    assert main(["models", "delete", "nano", "--yes"]) == 2


def test_another_process_resumes_an_interrupted_pull(server: Hub, repository: Repository, tmp_path: Path) -> None:
    size = len(repository.files["model.safetensors"])
    assert size > 1_200_000
    repository.cut = 1_100_000
    first = command(server, "pull", "distilgpt2", "--progress", home=tmp_path / "h")
    part = tmp_path / "h" / "models" / ".pulling" / f"distilgpt2@{repository.commit[:12]}" / "model.safetensors.part"
    while not (part.exists() and part.stat().st_size >= 1 << 20):  # the server sends no more than that
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    repository.go_on.set()
    repository.cut, repository.ranges = 0, []
    done = command(server, "pull", "distilgpt2", home=tmp_path / "h")
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert "every file matches its hash" in out
    assert repository.ranges == ["bytes=1048576-"]
    got = tmp_path / "h" / "models" / "distilgpt2" / "model.safetensors"
    assert got.read_bytes() == repository.files["model.safetensors"]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_file_with_a_wrong_hash_is_refused(repository: Repository, file: str) -> None:
    data = repository.files[file]
    repository.lies[file] = bytes([data[0] ^ 1]) + data[1:]
    assert f"{file} of {DISTIL} is not the file whose hash the hub gives" in refused()
    assert leftovers() == []
    repository.lies.clear()
    assert pull.pull("distilgpt2").fresh


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_more_bytes_than_the_hub_announces_are_not_written(repository: Repository, file: str) -> None:
    size, seen = len(repository.files[file]), list[pull.PullProgress]()
    repository.endless.add(file)
    before = sum(len(one) for name, one in repository.files.items() if len(one) < size and name != "pytorch_model.bin")
    with pytest.raises(UserError, match=f"{file} of {DISTIL} exceeds its listed {size:,} bytes; it was deleted"):
        pull.pull("distilgpt2", report=seen.append)
    assert max(one.done for one in seen) <= before + size
    assert leftovers() == []
    repository.endless.clear()
    assert pull.pull("distilgpt2").fresh


def test_a_file_without_a_size_is_refused(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [{k: v for k, v in one.items() if k != "size"} for one in repository.siblings()]
    monkeypatch.setattr(repository, "siblings", lambda: sizes)
    assert "the hub gives no size of" in refused()
    assert repository.ranges == [] and leftovers() == []


def test_space_for_other_files_is_left(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    need = sum(len(data) for data in repository.files.values())  # a little more than what is pulled
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, need))
    assert "and 100.0 MB are left for other files" in refused()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, need + SPARE))
    assert pull.pull("distilgpt2").fresh


def test_a_pull_whose_progress_nobody_reads_is_whole(server: Hub, repository: Repository, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = command(server, "pull", "distilgpt2", "--progress", home=tmp_path / "h", stderr=writer)
    os.close(writer)
    assert "every file matches its hash" in done.communicate()[0]
    assert done.returncode == 0


def test_too_little_space_is_reported_before_the_download(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    assert "but only 0.0 MB are free" in refused()
    assert repository.ranges == []


class _Full:
    """A disk without room for the weights."""

    def step(self, call: str, path: str, source: str = "") -> None:
        pass

    def write(self, path: str, data: Any, put: Callable[[Any], int | None]) -> int | None:
        if path.endswith("model.safetensors.part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return put(data)

    def library(self, path: str, write: Callable[[], object]) -> None:
        write()


def test_a_disk_that_fills_up_during_a_pull_is_one_line(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "faults", _Full())
    assert "the disk is full" in refused()
    assert lookup.every() == [lookup.find("nano")]
    monkeypatch.setattr(storage, "faults", None)
    assert pull.pull("distilgpt2").fresh


def test_refusals_of_the_hub_are_one_line_each(server: Hub, repository: Repository) -> None:
    assert "there is no model some/other at http://127" in refused("some/other")
    assert "has no revision 'v9'" in refused(revision="v9")
    repository.gated = True
    assert "is gated: accept its terms" in refused()
    assert leftovers() == []


def test_a_repository_that_cannot_be_opened_is_refused(repository: Repository) -> None:
    whole = dict(repository.files)
    del repository.files["model.safetensors"]
    assert "only as pytorch_model.bin, which can run code" in refused()
    del repository.files["pytorch_model.bin"]
    assert "no weights in safetensors" in refused()
    repository.files = {n: d for n, d in whole.items() if n != "config.json"}
    assert "no config.json" in refused()
    repository.files = {**whole, "model.safetensors": b"PK\x03\x04 a pickle in disguise"}
    assert "not a safetensors file" in refused()
    assert leftovers() == []


@pytest.mark.parametrize(
    "change",
    [{"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}, {"activation_function": "silu"}],
    ids=str,
)
def test_a_variant_of_gpt2_that_only_transformers_runs_is_pulled(
    change: dict[str, Any], repository: Repository
) -> None:
    raw = json.loads(repository.files["config.json"]) | change
    repository.files["config.json"] = json.dumps(raw).encode()
    assert pull.pull("distilgpt2").fresh
    repository.commit = "abcdef0123" * 4
    repository.files["config.json"] = json.dumps(raw | {"n_head": 7}).encode()
    made = pull.pull("distilgpt2")
    assert made.fresh, "whether transformers runs it is checked when it is opened"
    repository.commit = "0123456789" * 4
    repository.files["config.json"] = json.dumps({"model_type": "gpt2", "n_head": 7, "n_embd": 64}).encode()
    assert "can't be opened" in refused()


def test_all_files_of_a_vocabulary_are_pulled(repository: Repository) -> None:
    from tui_llm.llm.adapters import checks

    repository.files |= dict.fromkeys(checks._OTHERS, b"\n")
    folder = pull.pull("distilgpt2").folder
    assert {path.name for path in folder.iterdir()} >= set(checks._OTHERS)


def test_an_unreachable_hub_and_offline_mode_are_one_line(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "can't pull distilbert/distilgpt2 from http://127.0.0.1:9" in refused()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, so distilbert/distilgpt2 can't be pulled" in refused()


def test_pull_offers_no_option_with_which_it_only_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "distilgpt2", "--offline"]) == 2
    assert "unrecognized arguments: --offline" in capsys.readouterr().err


HOSTILE = ["../x", "a/b/c", "", "/etc", "a/../b", "a/b\x1b[31m", "a/b\n", "[/]", "a--b/c", "a/b..c", "\u202ea/b", "a/" + "b" * 300, "x", "a/.b"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", name]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert "\u202e" not in said
    with pytest.raises(UserError):
        pull.delete(name)


@pytest.mark.parametrize("revision", ["../../x", "a\x1b", "", "a..b", "-x", "x y", "a" * 300])
def test_hostile_revisions(revision: str) -> None:
    assert "is not a revision" in refused(revision=revision)


def test_a_folder_of_the_users_is_never_replaced_or_deleted(repository: Repository) -> None:
    own = paths.models_dir() / "distilgpt2"
    own.mkdir(parents=True)
    (own / "config.json").write_text("{}")
    assert "was not pulled; rename it" in refused()
    with pytest.raises(UserError, match="no pulled model"):
        pull.delete("distilgpt2")
    assert (own / "config.json").read_text() == "{}"


def test_a_pulled_model_that_is_a_link_is_not_deleted(tmp_path: Path) -> None:
    """Its user has moved it to another disk."""
    link, real = paths.pulled_model("some-one--Model"), tmp_path / "disk"
    real.mkdir()
    (real / pull.ORIGIN).write_text('{"repository": "some-one/Model"}')
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    with pytest.raises(UserError, match="it is a link; delete the link yourself"):
        pull.delete("some-one/Model")
    assert link.is_symlink() and (real / pull.ORIGIN).exists()


def test_another_revision_replaces_the_one_before(repository: Repository) -> None:
    pull.pull("distilgpt2")
    repository.commit = "abcdef0123" * 4
    repository.files["README.md"] = b"# newer"
    assert pull.pull("distilgpt2").fresh
    assert (paths.models_dir() / "distilgpt2" / "README.md").read_bytes() == b"# newer"
    assert len(lookup.every()) == 2


def test_a_model_in_the_huggingface_cache_opens(distil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert model_list.cached() == []
    kept = tmp_path / "hub" / "models--some--small"
    snapshot = kept / "snapshots" / ("0a" * 20)
    snapshot.mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0a" * 20)
    (kept / "blobs").mkdir()
    for path in distil.iterdir():
        (kept / "blobs" / path.name).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(kept / "blobs" / path.name)
    (row,) = model_list.cached()
    assert isinstance(row, ModelInfo)
    assert (row.name, row.kind, row.context, row.vocabulary) == ("some/small", "cache", 64, 4096)
    assert row.size == sum(p.stat().st_size for p in distil.iterdir())
    assert lookup.find("some/small").folder == snapshot
    assert lookup.find(str(snapshot)).name == "some/small"
    (kept / "refs" / "main").write_text("../../../etc")
    with pytest.raises(UserError):
        lookup.find("some/small")


def test_a_missing_library_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "huggingface_hub", missing)
    assert "pip install 'tui-llm[hub]'" in refused()
    assert model_list.cached() == []
