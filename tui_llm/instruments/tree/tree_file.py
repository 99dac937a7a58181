"""Read and write a tree of continuations as a JSON file. Tokens are identified by id; a caller that opens the file with
a model must check the tokens' bytes against it (`instruments.tree.question.KnownQuestion`).

    {"format": "tui-llm tree", "version": 1, "model": {…}, "text": {…}, "sampler": {…}, "seed": 1, "draws": 0,
     "nodes": [{"parent": 0, "id": 262, "bytes": "20746865", "log_probability": -1.2, "drawn": 0.4, "rank": 1, …}, …]}

`nodes` are numbered from 1 in file order; 0 is the root, and a parent precedes its children. Logarithms are natural,
bytes hexadecimal. `ends`: whether the text ends after a token; without it, special tokens end it and others don't, as
files of versions before it mean. `children_by`: `raw_probability`, the order in which a node's `asked` children were chosen;
without it, by the penalised logits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tui_llm.common import storage
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.common.files import json_text
from tui_llm.common.foreign_files import read_json
from tui_llm.common.new_files import write_new
from tui_llm.facts.interventions import refusal
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token
from tui_llm.instruments.tree.question import NextToken
from tui_llm.instruments.tree.tree import LONGEST_NAME, Tree
from tui_llm.llm.tokens.token_bytes import token_text

FORMAT, VERSION = "tui-llm tree", 1
BY_RAW = "raw_probability"
MOST_NODES = 500_000
MOST_BYTES = 256_000_000
_LONGEST_TOKEN = 65_536  # bytes
_MODEL = ("name", "step", "parameters", "layers", "heads", "width", "context", "vocabulary")


def same_model(a: Weights, b: Weights) -> bool:
    """Whether the numbers of `a` and `b` are comparable: same model and training step, on any device."""
    return all(getattr(a, name) == getattr(b, name) for name in _MODEL)


def model_words(weights: Weights) -> str:
    """Raw text: pass it through `display.visible` before showing it."""
    return weights.name if weights.step is None else f"{weights.name} at step {weights.step:,}"


def tree_json(tree: Tree) -> dict[str, Any]:
    """The tree as JSON values, in the format described above."""
    numbers = {tree.root: 0}
    nodes = []
    for number, node in enumerate(tree.nodes()):
        numbers[node] = number
        if node.parent is None or node.token is None:
            continue
        line: dict[str, Any] = {
            "parent": numbers[node.parent],
            **_token_json(node.token),
            **({"ends": node.ends} if node.ends != node.token.special else {}),
            "log_probability": node.log_probability,
            "drawn": node.drawn,
            "rank": node.rank,
        }
        line |= {key: value for key, value in (("u", node.u), ("name", node.name), ("shut", node.collapsed), ("asked", node.expanded), ("least", node.least)) if value or (value == 0 and key == "u")}  # fmt: skip
        nodes.append(line)
    request = tree.request
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": {name: getattr(tree.weights, name) for name in _MODEL},
        "text": {
            "prompt": request.prompt,
            "allow_special": request.allow_special,
            "start_token": request.start_token,
            "chat": request.chat,
            "continuation": [_token_json(token) for token in tree.continued],
            "ids": list(tree.text_ids),
        },
        "sampler": dataclasses.asdict(request.sampler),
        "seed": tree.seed,
        "draws": tree.draws,
        "children_by": BY_RAW,
        "root": {"name": tree.root.name, "asked": tree.root.expanded, "least": tree.root.least},
        "nodes": nodes,
    }


def save(tree: Tree, path: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Raises `UserError` if the file can't be written, `new_files.AlreadyExists` if it exists and `force` is not set; an
    existing file is then unchanged."""
    if off := tree.request.interventions:
        raise UserError(refusal("a file holds trees of an unchanged model", off))
    text = json_text(tree_json(tree))
    write_new(path, lambda part: storage.write_text(part, text), force=force, inputs=inputs)
    tree.changed = False


def load(path: Path) -> Tree:
    """Raises a one-line `UserError` if there is no such file, or its content is no complete tree."""
    value = read_json(path, MOST_BYTES)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a tree of continuations; w in the tree's screen or `tui-llm tree --out` writes one"
        )
    if value.get("version") != VERSION:
        raise UserError(f"{path} is of another version of the format; a newer tui-llm may open it")
    try:
        return _tree(value)
    except (UserError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else in_one_line(error)[:120]
        raise UserError(f"{path} does not contain a complete tree: {why}; it may be damaged or cut short") from error


# ── reading untrusted input ──────────────────────────────────────────────────────────────────────────────────────────


def _tree(value: dict[str, Any]) -> Tree:
    model, text = _table(value["model"], "model"), _table(value["text"], "text")
    sizes: dict[str, Any] = {name: _whole(model[name], name, 1) for name in _MODEL[2:]}
    step = None if model["step"] is None else _whole(model["step"], "step")
    weights = Weights(_string(model["name"], "the model's name"), step, **sizes, device="")
    vocabulary = weights.vocabulary
    continued = tuple(_token(one, vocabulary) for one in _rows(text["continuation"], "continuation"))
    request = Request(
        prompt=_string(text["prompt"], "the prompt"),
        continuation=tuple(token.id for token in continued),
        allow_special=_flag(text["allow_special"]),
        start_token=_flag(text["start_token"]),
        chat=_flag(text.get("chat", False)),
        sampler=_sampler(_table(value["sampler"], "sampler")),
    )
    ids = tuple(_whole(id, "an id", 0, vocabulary - 1) for id in _rows(text["ids"], "ids"))
    tree = Tree(request, weights, _whole(value["seed"], "seed"), _whole(value["draws"], "draws"), continued, ids)
    _fill(tree, _rows(value["nodes"], "nodes"), vocabulary)
    _own(tree.root, _table(value["root"], "root"))
    if request.sampler.repetition_penalty != 1 and value.get("children_by") != BY_RAW:
        # An earlier version's: with a penalty, its children need not be the likeliest. Growth asks for these again.
        for node in tree.nodes():
            node.expanded = 0
    tree.changed = False
    return tree


def _fill(tree: Tree, rows: list[Any], vocabulary: int) -> None:
    nodes = [tree.root]
    for number, row in enumerate(rows, 1):
        line = _table(row, f"node {number}")
        parent = nodes[_whole(line["parent"], f"node {number}'s parent", 0, number - 1)]
        log_p = _number(line["log_probability"], f"node {number}'s log probability", -math.inf, 0.0)
        drawn = _number(line["drawn"], f"node {number}'s probability", 0.0, 1.0 + 1e-9)
        u = None if line.get("u") is None else _number(line["u"], f"node {number}'s u", 0.0, 1.0)
        token = _token(line, vocabulary)
        ends = _flag(line.get("ends", token.special))
        found = NextToken(token, log_p, drawn, _whole(line["rank"], "rank", 1), u, ends)
        before = len(tree)
        node = tree.add(parent, found)
        if len(tree) == before:
            raise ValueError(f"node {number} occurs twice")
        _own(node, line)
        nodes.append(node)
    for node in nodes:
        if node.covered > 1.001:
            raise ValueError("the children of a node have more than 100 % between them")


def _own(node: Any, line: dict[str, Any]) -> None:
    node.name = _string(line.get("name", ""), "a name")[:LONGEST_NAME]
    node.collapsed = _flag(line.get("shut", False))
    node.expanded = _whole(line.get("asked", 0), "asked")
    node.least = _number(line.get("least", 0.0), "least", 0.0, 1.0)


def _token_json(token: Token) -> dict[str, Any]:
    return {"id": token.id, "bytes": token.bytes.hex(), **({"special": True} if token.special else {})}


def _token(line: Any, vocabulary: int) -> Token:
    line = _table(line, "a token")
    data = bytes.fromhex(_string(line["bytes"], "bytes", 2 * _LONGEST_TOKEN))
    return Token(
        _whole(line["id"], "an id", 0, vocabulary - 1), data, token_text(data), _flag(line.get("special", False))
    )


def _sampler(line: dict[str, Any]) -> SamplerSettings:
    known = {field.name: type(field.default) for field in dataclasses.fields(SamplerSettings)}
    given: dict[str, Any] = {}
    for name, value in line.items():
        if name not in known:
            raise ValueError(f"this version has no sampler setting {name[:40]!r}")
        if known[name] is bool:
            given[name] = _flag(value)
        else:
            given[name] = _whole(value, name) if known[name] is int else _number(value, name, 0.0, math.inf)
    return SamplerSettings(**given)


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value


def _rows(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MOST_NODES:
        raise ValueError(f"{what} is not a list, or has over {MOST_NODES:,} entries")
    return value


def _string(value: Any, what: str, most: int = 10_000_000) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise ValueError(f"{what} is not a text, or is a very long one")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a flag is neither true nor false")
    return value


def _whole(value: Any, what: str, least: int = 0, most: int = 1 << 62) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{what} is out of range")
    return value


def _number(value: Any, what: str, least: float, most: float) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not least <= value <= most
        or math.isinf(value)
    ):
        raise ValueError(f"{what} is out of range")
    return float(value)
