"""Foreign files: special files, too large files and invalid JSON give one line of error, and reading never blocks."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tui_llm.common import foreign_files
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign, parse_json, read_foreign, read_json
from tui_llm.llm.data.texts import read_text
from tui_llm.llm.hub import lookup, model_list
from tui_llm.llm.model import intact
from tui_llm.llm.model.tensor_shapes import read_header
from tui_llm.llm.tokens import folder_files, vocabulary_files, vocabulary_folder
from tui_llm.training.run.foreign import trainer_state
from tui_llm.training.run.foreign.log_curves import LogCurves

KINDS = ["fifo", "socket", "device", "folder", "sparse"]


def put(path: Path, kind: str) -> Path:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 20 << 30)
    else:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket has a length limit
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_special_files_and_too_large_files_are_refused(kind: str, tmp_path: Path) -> None:
    path = put(tmp_path / "x", kind)
    words = {"fifo": "a named pipe", "socket": "a socket", "device": "a device", "folder": "a folder", "sparse": "has 21,474,836,480 bytes"}  # fmt: skip
    with pytest.raises(UserError, match=words[kind]) as caught:
        read_foreign(path, 1000)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "x" * 300, "a\0b", "loop"])
def test_files_that_cannot_be_opened_are_reported(name: str, tmp_path: Path) -> None:
    if name == "loop":
        (tmp_path / name).symlink_to(name)
    with pytest.raises(UserError, match="can't read"):
        read_foreign(tmp_path / name, 1000)


def test_a_file_that_is_swapped_for_a_pipe_after_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("fine")
    first = foreign_files._stat

    def swap(at: Path) -> os.stat_result:
        found = first(at)
        path.unlink()
        os.mkfifo(path)
        return found

    monkeypatch.setattr(foreign_files, "_stat", swap)
    with pytest.raises(UserError, match="a named pipe"), open_foreign(path):
        pass


def test_a_file_of_unknown_size_is_bounded_too(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("/proc/self/smaps")  # a regular file that reports a size of 0 bytes
    with pytest.raises(UserError, match=r"over the 100 that"):
        read_foreign(tmp_path / "x", 100)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 200_000, "nested too deep"),
        ("[" * 200 + "]" * 200, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ("[" + "[]," * 3_000_000 + "[]]", "more than 6,000,000 values"),
        ("9" * 100_000, "not valid JSON"),
        ("{", "not valid JSON"),
        ("\ufeff{}", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_json_that_is_costly_to_parse_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        parse_json(text.encode(), tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_json_of_a_large_tokenizer_is_read(tmp_path: Path) -> None:
    """JSON with as many values as the largest known tokenizer, and as deeply nested as any."""
    deep: object = 1
    for _ in range(99):
        deep = [deep]
    vocab = {f"token {at}": at for at in range(262_144)}
    value = {"model": {"vocab": vocab, "merges": [[f"t{at}", "x"] for at in range(520_000)]}, "deep": deep}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(value))
    assert read_json(path, foreign_files.TOKENIZER) == value


def test_json_that_is_decoded_whole_may_have_64_mb(tmp_path: Path) -> None:
    """Decoded, it can take up to nine times its size."""
    tokenizer, state = tmp_path / "tokenizer.json", tmp_path / "trainer_state.json"
    for path in (tokenizer, state):
        path.write_text("{}")
        os.truncate(path, (64 << 20) + 1)  # sparse
    with pytest.raises(UserError, match="over the 67,108,864"):
        folder_files.read_file(tokenizer)
    with pytest.raises(UserError, match="over the 67,108,864"):
        trainer_state.add_file(state, LogCurves(""))


def readers(folder: Path) -> dict[str, object]:
    """Returns every function that opens a user's file, as a call for the file `x` in `folder`."""
    return {
        "text": lambda: read_text(folder / "x"),
        "weights": lambda: read_header(folder / "x"),
        "settings": lambda: folder_files.settings_of(folder / "x"),
        "vocabulary": lambda: vocabulary_files.read_bytes(folder / "x"),
        "library": lambda: vocabulary_files.read_tokenizer_json(folder / "x"),
        "merges": lambda: (
            (folder / "vocab.json").write_text('{"a": 0}'),
            (folder / "merges.txt").unlink(missing_ok=True),
            (folder / "merges.txt").symlink_to(folder / "x"),
            vocabulary_folder.load_folder(folder),
        ),
        "checkpoint": lambda: (
            (folder / intact.RECORD).write_text(json.dumps({"sha256": {"x": "0"}})),
            intact.check(folder),
        ),
        "name": lambda: lookup.size_of_vocabulary(folder),
    }


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize(
    "reader", ["text", "weights", "settings", "vocabulary", "library", "merges", "checkpoint", "name"]
)
def test_every_reader_refuses_it(reader: str, kind: str, tmp_path: Path) -> None:
    put(tmp_path / "x", kind)
    with pytest.raises(UserError) as caught:
        readers(tmp_path)[reader]()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_card_that_is_a_pipe_is_ignored(tmp_path: Path) -> None:
    put(tmp_path / model_list.CARD, "fifo")
    assert model_list.card(tmp_path) == ""


def test_a_memory_limit_is_reported_in_one_line(tmp_path: Path) -> None:
    """Weights that fit the machine but not this process's limit: the line has both numbers, before anything is read."""
    from tui_llm.common import memory
    from tui_llm.llm.model import checkpoint
    from tui_llm.llm.model.model import GPT
    from tui_llm.llm.model.shape import GPTConfig

    config = GPTConfig(vocabulary=300, context=64, layers=1, heads=1, width=32)
    checkpoint.save(GPT(config), tmp_path / "model", end_of_text=0)
    raw = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(raw | {"n_positions": 10_000_000}))
    header, data = _header(tmp_path / "model" / "model.safetensors")
    more = header.pop("transformer.wpe.weight")
    header["transformer.wpe.weight"] = more | {
        "shape": [10_000_000, 32],
        "data_offsets": [len(data), len(data) + 1_280_000_000],
    }
    at = 0
    for tensor in sorted(header.values(), key=lambda one: one.get("data_offsets", [0])[0]):
        if "data_offsets" in tensor:
            length = tensor["data_offsets"][1] - tensor["data_offsets"][0]
            tensor["data_offsets"] = [at, at + length]
            at += length
    text = json.dumps(header).encode()
    with (tmp_path / "model" / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    code = (
        "import resource, sys, torch\nfrom pathlib import Path\nfrom tui_llm.llm.model import checkpoint; from tui_llm.common import memory\nfrom tui_llm.common.errors import UserError\n"
        "space = memory._statm()[0] + (1 << 30)\nresource.setrlimit(resource.RLIMIT_AS, (space, space))\n"
        "try:\n    checkpoint.load(Path(sys.argv[1]))\nexcept UserError as error:\n    print(error)\n"
    )
    made = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True)
    assert "GB of memory and" in made.stdout and made.stdout.count("\n") == 1, made
    assert memory.free_bytes() is None or memory.free_bytes() > 0  # type: ignore[operator]
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def _header(path: Path) -> tuple[dict[str, dict[str, object]], bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]
