"""Mutated texts and folders: evaluated, tokenized for training, used to train a vocabulary, read as pairs, counted."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.mutations import changes, forked
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
        return Case(f"pairs {what}", words, ("train", str(bases / "pairs.jsonl"), *words[2:]), check=_trained(path))
    if use == "tree":
        path = work / "tree.json"
        path.write_bytes((bases / "tree.json").read_bytes())
        if draw.random() < 0.6:
            changes.change_json(draw, path, draw.choice((1, 2)))
            return Case("tree json", call=_tree(path), check=_all_nodes(path))
        return Case(f"tree {_change(draw, path, work)}", call=_tree(path), check=_all_nodes(path))
    path = work / "text.txt"
    path.write_bytes((bases / "text.txt").read_bytes())
    what = _change(draw, path, work)
    if use == "load":
        return Case(f"load {what}", call=_load(path, bases), check=_whole_text(path))
    if use == "evaluate" and path.is_file() and 200_000 < path.stat().st_size < 1 << 26:
        os.truncate(path, 200_000)  # a short text: the model's speed is not under test
    same = what in ("BOM", "CRLF")  # the decoded text is the same, and so must be its loss
    if use == "evaluate":
        words = ("evaluate", str(path), "--model", str(bases / "gpt2"), "--json")
        plain = ("evaluate", str(bases / "text.txt"), *words[2:])
        return Case(f"evaluate {what}", words, plain, kept=_loss if same else None, check=_all_bytes(path))
    words = ("vocabulary", "train", str(path), "--size", "280", "--out", str(work / "made"), "--json")
    return Case(f"vocabulary {what}", words, check=_usable(work / "made"))


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


def _loss(answer: Any) -> Any:
    return [answer[name] for name in ("tokens", "loss", "bytes")]


def _text_of(path: Path) -> str | None:
    """The text of a file's documents, without the blank lines around each, CRLF as LF, as Python decodes it; None for a folder,
    or where it is not UTF-8."""
    if not path.is_file():
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except ValueError:
        return None
    return "".join(part.strip("\n") for part in text.split("<|endoftext|>"))


def _all_bytes(path: Path) -> Callable[[Any], str]:
    """Returns a check that every byte of the text was evaluated, and of the loss that its perplexity and bits are."""

    def check(answer: Any) -> str:
        text = _text_of(path)
        if text is not None and answer["bytes"] != len(text.encode()):
            return f"{answer['bytes']} bytes, the text has {len(text.encode())}"
        if not math.isclose(answer["perplexity"], math.exp(answer["loss"]), rel_tol=1e-9):
            return f"loss {answer['loss']}, perplexity {answer['perplexity']}"
        bits = answer["loss"] * answer["tokens"] / math.log(2)
        if not math.isclose(answer["bits_per_byte"] * answer["bytes"], bits, rel_tol=1e-3):
            return f"loss {answer['loss']}, bits per byte {answer['bits_per_byte']}"
        return ""

    return check


def _whole_text(path: Path) -> Callable[[Any], str]:
    """Returns a check that the ids to train on and those held out give back the text."""

    def check(answer: Any) -> str:
        text = _text_of(path)
        if text is None or answer["digest"] == hashlib.sha256(text.encode()).hexdigest():
            return ""
        return f"the {answer['train']} + {answer['validation']} tokens do not give back the text"

    return check


def _all_nodes(path: Path) -> Callable[[Any], str]:
    """Returns a check that a tree has all the nodes of its file."""

    def check(answer: Any) -> str:
        count = len(json.loads(path.read_text(encoding="utf-8-sig"))["nodes"])
        return "" if answer["nodes"] == count else f"{answer['nodes']} nodes, the file has {count}"

    return check


def _trained(path: Path) -> Callable[[Any], str]:
    """Returns a check that no more pairs were trained on than the file has lines, and that the losses are numbers."""

    def check(answer: Any) -> str:
        text = _text_of(path)
        if text is not None and not 0 < answer["pairs"] <= 1 + len(text.splitlines()):
            return f"{answer['pairs']} pairs of {len(text.splitlines())} lines"
        losses = answer["loss_before"], answer["loss_after"]
        return "" if all(0 <= loss < 100 for loss in losses) else f"losses {losses}"

    return check


def _usable(folder: Path) -> Callable[[Any], str]:
    """Returns a check that the new vocabulary has as many tokens as are told, and gives back a text."""

    def check(answer: Any) -> str:
        count = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
        if answer["size"] != count:
            return f"{answer['size']} tokens, the vocabulary has {count}"
        words = ["tokens", "The cat, café", "--tokenizer", str(folder), "--json"]
        ending = forked.run(lambda: _main(words))
        if ending.code != 0:
            return f"it can't be used: {ending.err[-300:]}"
        made = b"".join(bytes.fromhex(token["bytes"]) for token in json.loads(ending.out)["tokens"])
        return "" if made == "The cat, café".encode() else f"the tokens give back {made!r}"

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

        vocabulary = load_folder(bases / "gpt2")
        made = corpus.load([corpora.place(str(path))], vocabulary, 0.1, block_size=8)
        ids = [*made.train.tolist(), *made.validation.tolist()]
        text = b"".join(b"" if id == made.separator else vocabulary.token_bytes(id) for id in ids)
        return {
            "train": len(made.train),
            "validation": len(made.validation),
            "entropy": made.unigram_entropy,
            "bytes": made.bytes_per_token,
            "digest": hashlib.sha256(text).hexdigest(),
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
