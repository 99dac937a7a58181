"""Mutated texts and folders: evaluated, tokenized for training, used to train a vocabulary, read as pairs, counted."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.mutations import changes
from tests.mutations.case import Case

PAIRS = "".join(json.dumps({"question": f"What is {i}?", "answer": f"It is {i}."}) + "\n" for i in range(8))


def make(draw: random.Random, bases: Path, work: Path) -> Case:
    use = draw.choice(("evaluate", "evaluate", "load", "load", "vocabulary", "pairs", "tree"))
    if use == "pairs":
        path = work / draw.choice(("pairs.jsonl", "pairs.tsv", "pairs.txt"))
        path.write_text(
            PAIRS if path.suffix == ".jsonl" else PAIRS.replace('{"question": "', "").replace('", "answer": "', "\t")
        )
        what = _change(draw, path, work)
        model = str(bases / "gpt2")
        words = ("train", str(path), "--instruct", "--from", model, "--run", "mutated", "--steps", "1", "--json")
        return Case(f"pairs {what}", words, ("train", str(bases / "pairs.jsonl"), *words[2:]))
    if use == "tree":
        path = work / "tree.json"
        path.write_bytes((bases / "tree.json").read_bytes())
        if draw.random() < 0.6:
            changes.change_json(draw, path, draw.choice((1, 2)))
            return Case("tree json", call=_tree(path))
        return Case(f"tree {_change(draw, path, work)}", call=_tree(path))
    path = work / "text.txt"
    path.write_bytes((bases / "text.txt").read_bytes())
    what = _change(draw, path, work)
    if use == "load":
        return Case(f"load {what}", call=_load(path, bases))
    if use == "evaluate" and path.is_file() and 200_000 < path.stat().st_size < 1 << 26:
        os.truncate(path, 200_000)  # a short text: the model's speed is not under test
    same = what in ("BOM", "CRLF")  # the decoded text is the same, and so must be its loss
    if use == "evaluate":
        words = ("evaluate", str(path), "--model", str(bases / "gpt2"), "--json")
        check = _as_before(bases) if same else None
        return Case(f"evaluate {what}", words, ("evaluate", str(bases / "text.txt"), *words[2:]), check=check)
    words = ("vocabulary", "train", str(path), "--size", "280", "--out", str(work / "made"), "--json")
    return Case(f"vocabulary {what}", words)


def make_bases(top: Path) -> None:
    (top / "pairs.jsonl").write_text(PAIRS)
    from tui_llm.engine import PipelineEngine
    from tui_llm.facts.request import Request
    from tui_llm.facts.tokens import Token
    from tui_llm.instruments.tree.question import NextToken
    from tui_llm.instruments.tree.tree import Tree
    from tui_llm.instruments.tree.tree_file import save

    engine = PipelineEngine("cpu")
    weights = engine.open(str(top / "gpt2"))
    tree = Tree(
        Request(prompt="The cat"),
        weights,
        1,
        0,
        (),
        tuple(engine.open_model.tokenizer.encode("The cat")) if hasattr(engine, "open_model") else (1, 2),
    )
    node = tree.root
    for at in range(4):
        node = tree.add(node, NextToken(Token(at, b"a", "a", False), -1.0, 0.4, 1, None))
    save(tree, top / "tree.json")


def _as_before(bases: Path) -> Callable[[Any], str]:
    def check(answer: Any) -> str:
        from tests.mutations import forked

        words = ["evaluate", str(bases / "text.txt"), "--model", str(bases / "gpt2"), "--json"]
        plain = json.loads(forked.run(lambda: _main(words)).out)
        return (
            ""
            if all(answer[name] == plain[name] for name in ("tokens", "loss", "bytes"))
            else "another loss than the same text has"
        )

    return check


def _main(words: list[str]) -> int:
    from tui_llm import cli

    return cli.main(words)


def _told(work: Callable[[], dict[str, Any]]) -> Callable[[], int]:
    """Prints the result of `work` as JSON; a `UserError` as the command line does."""

    def call() -> int:
        from tui_llm.common.display import visible
        from tui_llm.common.errors import UserError

        try:
            print(json.dumps(work(), allow_nan=False))
            return 0
        except UserError as error:
            print(f"tui-llm: {visible(str(error))}", file=sys.stderr)
            return 2

    return call


def _load(path: Path, bases: Path) -> Callable[[], int]:
    def work() -> dict[str, Any]:
        from tui_llm.llm.data import corpora, corpus
        from tui_llm.llm.tokens.vocabulary_folder import load_folder

        made = corpus.load([corpora.place(str(path))], load_folder(bases / "gpt2"), 0.1, block_size=8)
        return {
            "train": len(made.train),
            "validation": len(made.validation),
            "entropy": made.unigram_entropy,
            "bytes": made.bytes_per_token,
        }

    return _told(work)


def _tree(path: Path) -> Callable[[], int]:
    def work() -> dict[str, Any]:
        from tui_llm.instruments.tree.tree_file import load

        return {"nodes": len(load(path))}

    return _told(work)


def _change(draw: random.Random, path: Path, work: Path) -> str:
    data = path.read_bytes()
    act = draw.choice(("bytes", "bytes", "kind", "BOM", "CRLF", "CR", "NUL", "late NUL", "utf-16", "latin", "line", "letters", "spaces", "sparse line", "separators", "blank", "control", "folder", "gz", "one"))  # fmt: skip
    if act == "bytes":
        changes.change_bytes(draw, path)
    elif act == "kind":
        return changes.other_kind(draw, path)
    elif act == "folder":
        return _folder(draw, path, data)
    elif act == "sparse line":
        os.truncate(path, draw.choice((len(data) + 1, 100_000_000, 3 << 30)))
    else:
        path.write_bytes(_rewritten(draw, act, data))
    return act


def _rewritten(draw: random.Random, act: str, data: bytes) -> bytes:
    match act:
        case "BOM":
            return b"\xef\xbb\xbf" + data
        case "CRLF":
            return data.replace(b"\n", b"\r\n")
        case "CR":
            return data.replace(b"\n", b"\r")
        case "NUL":
            return data[:50] + b"\0" + data[50:]
        case "late NUL":
            return data * (1 + 70_000 // len(data)) + b"\0 and on\n"
        case "utf-16":
            return data.decode().encode("utf-16")
        case "latin":
            return data.decode().encode("latin-1", "replace") + b"\xe9\n"
        case "line":
            return data.replace(b"\n", b" ") * (1 + draw.choice((10_000, 2_000_000)) // len(data))
        case "letters":
            return draw.choice((b"a", "é".encode(), "字".encode(), b"ab")) * draw.choice((1000, 100_000, 1_000_000))
        case "spaces":
            return (
                draw.choice((b" ", b"\n", b"\t", "\u3000".encode(), b" \n")) * draw.choice((1000, 100_000, 1_000_000))
                + b"end\n"
            )
        case "separators":
            return b"<|endoftext|>" * draw.choice((1, 50, 20_000)) + data + b"<|endoftext|" * 50
        case "blank":
            return draw.choice((b"", b"\n", b" ", b"\r", b"\xef\xbb\xbf"))
        case "control":
            return bytes(range(1, 32)) + "\u202e\u2028\ufffe\u200b".encode() + data
        case "gz":
            import gzip

            return gzip.compress(b"\0" * 50_000_000)
        case _:
            return b"a"


def _folder(draw: random.Random, path: Path, data: bytes) -> str:
    """Replaces the file by a folder with the text and something else."""
    path.unlink()
    path.mkdir()
    (path / "text.txt").write_bytes(data)
    kind = changes.other_kind(draw, path / draw.choice(("b.txt", ".hidden.txt", "no suffix")))
    if draw.random() < 0.3:
        (path / "loop").symlink_to(path)
    return f"folder with {kind}"
