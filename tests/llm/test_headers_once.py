"""A safetensors header is parsed once while a model is opened, described or checked."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.check.checks import check_model
from tui_llm.llm.hub import choices, lookup, model_list, open_model
from tui_llm.llm.model import tensor_shapes
from tui_llm.llm.model.tensor_shapes import headers_once, read_header
from tui_llm.session.open_model import OpenModel

NANO = paths.shipped_models_dir() / "nano"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """nano with a few tensors more, without elements."""
    made = tmp_path / "many"
    shutil.copytree(NANO, made)
    data = (made / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header |= {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100)}
    raw = json.dumps(header).encode()
    (made / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])
    return made


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The files whose header was parsed, each time."""
    seen, parse = list[Path](), tensor_shapes.parse_json

    def counted(data: bytes, path: Path) -> Any:
        seen.append(path)
        return parse(data, path)

    monkeypatch.setattr(tensor_shapes, "parse_json", counted)
    yield seen


WAYS: dict[str, Callable[[Path], object]] = {
    "numpy": lambda folder: OpenModel("cpu", numpy_first=True).open(str(folder)),
    "torch": lambda folder: OpenModel("cpu").open(str(folder)),
    "int8": lambda folder: OpenModel("cpu", "int8").open(str(folder)),
    "described": lambda folder: model_list.describe(lookup.find(str(folder))),
    "choices": lambda folder: choices.of_files(folder, "many"),
    "reader": open_model.opens_in_numpy,
    "checked": lambda folder: check_model(str(folder)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_header_is_parsed_once(way: str, folder: Path, parsed: list[Path]) -> None:
    WAYS[way](folder)
    assert parsed == [folder / "model.safetensors"]
    WAYS[way](folder)
    assert len(parsed) == 2, "nothing is kept from one opening to the next"


def test_headers_are_those_of_the_file_as_it_is(folder: Path, parsed: list[Path]) -> None:
    path = folder / "model.safetensors"
    with headers_once():
        found = read_header(path)
        with safe_open(path, "np") as file:
            assert {name: list(one.shape) for name, one in found.items()} == {
                name: file.get_slice(name).get_shape()
                for name in file.keys()  # noqa: SIM118
            }
        found.clear()
        assert len(read_header(path)) > 100, "what a caller does to its copy changes no other's"
        with headers_once():
            read_header(path)
        read_header(path)
        with ThreadPoolExecutor(1) as other:
            other.submit(read_header, path).result()
        assert len(parsed) == 2, "another thread opens another model"
        before = path.stat()
        path.with_name("new").write_bytes((NANO / "model.safetensors").read_bytes())
        path.with_name("new").replace(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert "t0" not in read_header(path)
        path.write_bytes(b"\xff" * 100)
        for _ in range(2):
            with pytest.raises(UserError, match="not a safetensors file"):
                read_header(path)
    assert len(parsed) == 3
