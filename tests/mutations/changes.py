"""Mutations of bytes, JSON, safetensors and GGUF headers, and of the kind of file."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

ABSURD: tuple[Any, ...] = (
    10**9, 10**6, 10**18, 2**31, 2**32, 2**63, 2**64, 10**400, -1, 0, 1, 2, 3, -(10**18), 1.5, 1.0, 1e300, 1e-320, float("inf"), float("-inf"), float("nan"),
    True, False, None, "", "12", "abc", "9" * 5000, "\x1b[31m", "\u202egpt2", "٣", "\ud800", "a" * 100_000, [], [2], {}, [[[]]], {"a": {"b": 1}}, "../../etc/passwd",
)  # fmt: skip
TEXTS = (
    "", "{", "[]", "{}", "3", "null", "NaN", '"x"', "[" * 200_000, '{"a":' * 100_000, "[" * 90 + "]" * 90, "[" * 5000 + "]" * 5000, "9" * 100_000, "\ufeff{}", "\0" * 100,
    '"' + "a" * 20_000_000 + '"', "[" + "[]," * 5_000_000 + "[]]", "{" + ",".join(f'"k{i}":{i}' for i in range(300_000)) + "}", '{"a":1,"a":2}', "[1e999]", "[" + "1" * 4000 + "]",
)  # fmt: skip


def json_change(draw: random.Random, value: Any) -> Any:
    """Returns `value` with one change: of a value, a key, a type or a depth. May change it in place."""
    holders: list[tuple[Any, Any]] = []

    def walk(one: Any, depth: int = 0) -> None:
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, inner in items:
            holders.append((one, key))
            if depth < 6:
                walk(inner, depth + 1)

    walk(value)
    if not holders or draw.random() < 0.03:
        return draw.choice(ABSURD)
    # Prefer the top levels: a vocabulary has thousands of equivalent leaves.
    holder, key = holders[min(draw.randrange(len(holders)), draw.randrange(len(holders)), draw.randrange(len(holders)))]
    act = draw.randrange(6)
    if act <= 2:
        holder[key] = draw.choice(ABSURD)
    elif act == 3:
        del holder[key]
    elif act == 4:
        holder[key] = draw.choice(([holder[key]], {"x": holder[key]}, [holder[key]] * 3, str(holder[key])))
    else:
        other, other_key = draw.choice(holders)
        try:
            holder[key] = other[other_key]
        except (KeyError, IndexError, TypeError):
            holder[key] = None
        if _cyclic(value):
            holder[key] = 0
    return value


def _cyclic(value: Any) -> bool:
    try:
        json.dumps(value)
    except (ValueError, RecursionError):
        return True
    return False


def change_json(draw: random.Random, path: Path, times: int = 1) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(times):
        value = json_change(draw, value)
    path.write_text(json.dumps(value))


def change_bytes(draw: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    size = len(data)
    act = draw.randrange(7)
    if act <= 1:
        for _ in range(draw.choice((1, 1, 2, 8, 64))):
            data[draw.randrange(size)] ^= 1 << draw.randrange(8)
    elif act == 2:
        del data[draw.choice((0, 1, 7, 8, 9, size // 2, size - 1, draw.randrange(size))) :]
    elif act == 3:
        data += draw.randbytes(draw.choice((1, 8, 1000)))
    elif act == 4:
        at = draw.randrange(size)
        data[at : at + draw.choice((1, 8, 500))] = b""
    elif act == 5:
        at = draw.randrange(size)
        data[at:at] = draw.choice((b"\0", b"\xff", b"\n", b"\r", b'"', b"\x1b[31m", b" " * 1000))
    else:
        at = draw.randrange(size)
        data[at : at + 8] = draw.choice((b"\0" * 8, b"\xff" * 8, struct.pack("<Q", 10**9)))
    path.write_bytes(data)


KINDS = (
    "folder",
    "fifo",
    "dangling",
    "loop",
    "zero",
    "random",
    "full",
    "stdin",
    "mem",
    "passwd",
    "empty",
    "noise",
    "sparse",
    "huge",
    "socket",
    "secret",
    "missing",
)


def other_kind(draw: random.Random, path: Path, kind: str | None = None) -> str:
    """Replaces the file at `path` by another kind of file; returns which."""
    kind = kind or draw.choice(KINDS)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    links = {"dangling": "nowhere", "loop": path.name, "zero": "/dev/zero", "random": "/dev/urandom", "full": "/dev/full", "stdin": "/dev/stdin", "mem": "/proc/self/mem", "passwd": "/etc/passwd"}  # fmt: skip
    if kind in links:
        path.symlink_to(links[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "noise":
        path.write_bytes(draw.randbytes(5000))
    elif kind in ("sparse", "huge"):
        path.touch()
        os.truncate(path, 20 << 30 if kind == "sparse" else 1 << 40)
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket has a length limit
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)
    elif kind != "missing":
        path.write_bytes(b"")
        if kind == "secret":
            path.chmod(0)
    return kind


# ── safetensors ──────────────────────────────────────────────────────────────────────────────────────────────────────

SIZES = (0, 1, 3, 31, 33, 64, 10**6, 10**9, 2**31, 2**40, 2**62, 2**63, 10**30, -1, 1.5, True, None, "32", float("nan"))
DTYPES = ("F64", "F16", "BF16", "I64", "I8", "BOOL", "F8_E4M3", "F8_E5M2", "U8", "F4", "C64", "XX", "", 3, None)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_header(path: Path, header: dict[str, Any] | str, data: bytes) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def change_weights(draw: random.Random, path: Path) -> str:
    """Mutates a safetensors file; returns what was changed."""
    act = draw.choice(("shape", "shape", "dtype", "offsets", "swap", "drop", "rename", "overlap", "extra", "twice", "length", "bytes", "json", "data", "many", "values"))  # fmt: skip
    header, data = header_of(path)
    names = [name for name in header if name != "__metadata__"]
    name = draw.choice(names)
    if act in ENTRY_CHANGES:
        ENTRY_CHANGES[act](draw, header, name, names)
        write_header(path, header, data)
    elif act == "extra":
        header["more"] = {
            "dtype": "F32",
            "shape": [draw.choice((0, 1, 4))],
            "data_offsets": [len(data), len(data) + draw.choice((0, 4, 16))],
        }
        write_header(path, header, data + b"\0" * draw.choice((0, 4, 16)))
    elif act == "twice":
        text = json.dumps(header)
        write_header(path, text[:-1] + f", {json.dumps(name)}: {json.dumps(header[draw.choice(names)])}}}", data)
    elif act == "length":
        whole = path.read_bytes()
        path.write_bytes(
            struct.pack(
                "<Q",
                draw.choice(
                    (0, 1, 7, 99_999_999, 100_000_001, 2**31, 2**40, 2**63, 2**64 - 1, len(whole) - 8, len(whole))
                ),
            )
            + whole[8:]
        )
    elif act == "bytes":
        change_bytes(draw, path)
    elif act == "json":
        write_header(path, json.dumps(json_change(draw, header)), data)
    else:
        write_header(path, header, _change_values(draw, data) if act == "values" else _flip_bits(draw, data))
    return act


# Each changes the entry `name` of a safetensors header, whose tensors are `names`, in place.


def _shape(draw: random.Random, header: dict[str, Any], name: str, names: list[str]) -> None:
    shape = list(header[name]["shape"])
    how = draw.randrange(4)
    if how == 0:
        header[name]["shape"] = shape[::-1]
    elif how == 1 and shape:
        shape[draw.randrange(len(shape))] = draw.choice(SIZES)
        header[name]["shape"] = shape
    elif how == 2:
        header[name]["shape"] = [draw.choice(SIZES) for _ in range(draw.randrange(5))]
    else:
        header[name]["shape"] = draw.choice(ABSURD)


def _dtype(draw: random.Random, header: dict[str, Any], name: str, names: list[str]) -> None:
    header[name]["dtype"] = draw.choice(DTYPES)


def _offsets(draw: random.Random, header: dict[str, Any], name: str, names: list[str]) -> None:
    at = draw.randrange(2)
    header[name]["data_offsets"][at] = draw.choice(
        (*SIZES, header[name]["data_offsets"][at] + draw.choice((-4, -1, 1, 4, 1000)))
    )


def _swap(draw: random.Random, header: dict[str, Any], name: str, names: list[str]) -> None:
    other = draw.choice(names)
    header[name]["data_offsets"], header[other]["data_offsets"] = (
        header[other]["data_offsets"],
        header[name]["data_offsets"],
    )


def _drop(draw: random.Random, header: dict[str, Any], name: str, names: list[str]) -> None:
    del header[name]


def _rename(draw: random.Random, header: dict[str, Any], name: str, names: list[str]) -> None:
    header[draw.choice(("x" + name, name.removeprefix("transformer."), name + "\x1b[2J", ""))] = header.pop(name)


def _overlap(draw: random.Random, header: dict[str, Any], name: str, names: list[str]) -> None:
    header[name]["data_offsets"] = header[draw.choice(names)]["data_offsets"]


def _many(draw: random.Random, header: dict[str, Any], name: str, names: list[str]) -> None:
    header |= {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}


ENTRY_CHANGES: dict[str, Callable[[random.Random, dict[str, Any], str, list[str]], None]] = {
    "shape": _shape,
    "dtype": _dtype,
    "offsets": _offsets,
    "swap": _swap,
    "drop": _drop,
    "rename": _rename,
    "overlap": _overlap,
    "many": _many,
}


def _change_values(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1000))):
        at = draw.randrange(len(data) // 4) * 4
        changed[at : at + 4] = struct.pack(
            "<f", draw.choice((float("nan"), float("inf"), -float("inf"), 3e38, 1e-45, 0.0, -1.0))
        )
    return bytes(changed)


def _flip_bits(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 50, 5000))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def change_gguf(draw: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    act = draw.choice(("flip", "flip", "flip", "number", "number", "cut", "counts", "insert"))
    head = min(len(data) - 8, 9000)
    if act == "flip":
        for _ in range(draw.choice((1, 1, 1, 4))):
            data[draw.randrange(head)] ^= 1 << draw.randrange(8)
    elif act == "number":
        at = draw.randrange(4, head)
        data[at : at + 8] = struct.pack("<Q", draw.choice((0, 1, 10**6, 10**9, 2**31, 2**40, 2**63, 2**64 - 1)))
    elif act == "cut":
        del data[draw.choice((0, 4, 8, 24, 100, draw.randrange(len(data)), draw.randrange(len(data)))) :]
    elif act == "counts":
        at = draw.choice((8, 16))
        data[at : at + 8] = struct.pack("<Q", draw.choice((0, 1, 10**5, 10**9, 2**63, 2**64 - 1)))
    else:
        at = draw.randrange(head)
        data[at:at] = draw.randbytes(draw.choice((1, 4, 8)))
    path.write_bytes(data)
    return act
