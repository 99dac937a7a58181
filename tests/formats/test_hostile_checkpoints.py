"""Checkpoint files that are damaged, hostile, or another program's: one clear line each, and no code is ever run."""

from __future__ import annotations

import io
import json
import os
import pickle
import shlex
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import published
import pytest
import torch

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.llm.formats import archive, archive_worker
from tui_llm.llm.hub.lookup import find
from tui_llm.llm.hub.model_list import describe


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        PipelineEngine("cpu").open(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, mark = published.nanogpt(tmp_path / "ckpt.pt"), tmp_path / "ran"
    raw = torch.load(path, weights_only=True)
    torch.save({**raw, "config": Evil(mark)}, path)
    message = refused(path)
    assert "never unpickled" in message and "mkdir" in message
    assert not mark.exists()


def test_a_pickle_by_another_name(tmp_path: Path) -> None:
    for name in ("ckpt.pt", "model.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")) + bytes(100))
        refused(tmp_path / name)
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    assert "never opened" in refused(tmp_path / "pytorch_model.bin")
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "since torch 1.6" in refused(tmp_path / "old.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([], "no state dict"),
        ({}, "no state dict"),
        ({"a": 3}, "'a' in it is not a tensor"),
        ({3: torch.zeros(2)}, "'3' in it is not a tensor"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "larger than the file"),
        ({"a": torch.zeros(2).to_sparse()}, "not a plain one"),
    ],
)
def test_states_that_are_no_models(state: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        archive_worker.tensors_of(state, 1000)


@pytest.mark.parametrize("content", [[], {"a": torch.zeros(2)}], ids=["list", "state"])
def test_other_contents(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "ckpt.pt")
    assert "ckpt.pt" in refused(tmp_path / "ckpt.pt")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"n_layer": 1 << 40}, "no usable n_layer"),
        ({"n_layer": True}, "no usable n_layer"),
        ({"n_layer": 5000}, "no tensor h.2.ln_1.weight"),
        ({"n_layer": 1}, "has the tensor h.1"),
        ({"vocab_size": 1 << 24}, r"wte.weight is \[12, 8\]"),
        ({"block_size": 16}, r"wpe.weight is \[8, 8\]"),
        ({"n_head": 3}, "not a multiple of 3 heads"),
        ({"bias": False}, "bias False, but its weights have biases"),
    ],
)
def test_settings_of_another_nanogpt(
    args: dict[str, Any], message: str, tmp_path: Path, read: dict[str, archive.Archive]
) -> None:
    from tui_llm.llm.formats import gpt_weights, nanogpt

    found = read["whole"]
    found = archive.Archive(found.path, found.tensors, found.same, {**(found.settings or {}), **args}, 1)
    stored = nanogpt._stored(found)
    with pytest.raises(UserError, match=message):
        config, biases = nanogpt._config(found, stored, tmp_path)
        gpt_weights.check_shapes(
            config, {name: one.info.shape for name, one in stored.items()}, tmp_path, biases=biases
        )


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with archive.opened(published.nanogpt(tmp_path_factory.mktemp("nanogpt") / "ckpt.pt")) as found:
        yield {"whole": found}


def test_archives_that_torch_does_not_write(tmp_path: Path) -> None:
    path = published.nanogpt(tmp_path / "ckpt.pt")
    data = path.read_bytes()
    for cut in (1, 3, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        refused(path)
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert "compressed" in refused(path)
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("a.txt", b"a")
    assert "not a file of torch.save" in refused(path)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    for name in ("ckpt.pt", "model.bin"):
        os.mkfifo(tmp_path / name)
        refused(tmp_path / name)
    refused(tmp_path)
    (tmp_path / "folder.pt").mkdir()
    refused(tmp_path / "folder.pt")


@pytest.mark.parametrize("version", [1, 2, 4, 6])
def test_other_versions_of_llm_c(version: int, tmp_path: Path) -> None:
    path = published.llm_c(tmp_path / "gpt2.bin")
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<i", version)
    path.write_bytes(data)
    assert f"version {version}; versions 3 (fp32) and 5 (bf16)" in refused(path)
    assert "version" in str(describe(find(str(path))).problem)


def test_other_files_of_llm_c(tmp_path: Path) -> None:
    path = tmp_path / "gpt2_124M_debug_state.bin"
    path.write_bytes(struct.pack("<i", 20240327).ljust(2000, b"\0"))
    assert "debug state" in refused(path)


@pytest.mark.parametrize("at", range(2, 8))
@pytest.mark.parametrize("number", [0, -1, 3, 1 << 30])
def test_damaged_headers_of_llm_c(at: int, number: int, tmp_path: Path) -> None:
    path = published.llm_c(tmp_path / "gpt2.bin")
    data = bytearray(path.read_bytes())
    data[4 * at : 4 * at + 4] = struct.pack("<i", number)
    path.write_bytes(data)
    if (at, number) != (3, 3):  # a smaller vocabulary has more padding rows
        assert "is damaged" in refused(path)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("number", [0, 3, 1 << 30, -(1 << 31)])
def test_damaged_headers_of_llama2_c(version: int, at: int, number: int, tmp_path: Path) -> None:
    path = published.llama2_c(tmp_path / "stories.bin", version)
    data = bytearray(path.read_bytes())
    start = 4 * at + (8 if version else 0)
    data[start : start + 4] = struct.pack("<i", number)
    path.write_bytes(data)
    refused(path)


def test_other_llama2_c_files(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    path = published.llama2_c(tmp_path / "stories.bin", 2)
    assert "version 2 (q8_0" in refused(path)
    published.llama2_c(path, 0, base=500000.0)
    assert "another base than 10,000" in refused(path)
    published.llama2_c(path, 1)
    assert "tokenizer.bin" in refused(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert "17,471" in refused(path) or "bytes, its header describes" in refused(path)
    path.write_bytes(os.urandom(5000))
    refused(path)


def test_several_models_in_a_folder(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        published.llm_c(tmp_path / name)
    assert "a.bin, b.bin" in refused(tmp_path)


def test_a_vocabulary_that_does_not_fit(tmp_path: Path) -> None:
    path = published.llm_c(tmp_path / "gpt2.bin")
    command = refused(path).partition("data's name): ")[2].replace("python", sys.executable, 1)
    dataset = tmp_path / "nanoGPT" / "data" / "NAME"
    dataset.mkdir(parents=True)
    (dataset / "meta.pkl").write_bytes(pickle.dumps({"stoi": {chr(97 + id): id for id in range(12)}}))
    subprocess.run(shlex.split(command), cwd=dataset.parents[1], check=True)
    assert json.loads((tmp_path / "vocab.json").read_text()) == {chr(97 + id): id for id in range(12)}
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    assert "2 characters, the model 12" in refused(path)
    for ids in ('{"a": 0, "b": 2}', '{"a": 1, "b": 2}', '{"a": 0, "\\ud800": 1}'):
        (tmp_path / "vocab.json").write_text(ids)
        assert "vocab.json" in refused(path) and "write it again" in refused(path)
    (tmp_path / "vocab.json").write_text('{"ab": 0}')
    assert "not one character" in refused(path)
