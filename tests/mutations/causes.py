"""Mutated head scores of a run (heads.jsonl), and mutated steering files."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.mutations import changes, runs
from tests.mutations.case import Case

PROMPT = "The cat"
STEER = ("steer", PROMPT, "--max-tokens", "2", "--top", "2", "--json")
HEADS = ("heads", "--run", runs.NAME, "--json")
LINES = (
    b'{"step": 3, "layers": 1, "heads": 1, "induction": [2], "previous": [0.1], "duplicate": [0.1]}\n',
    b'{"step": 3, "layers": 1, "heads": 1, "induction": [-1e-9], "previous": [0.1], "duplicate": [0.1]}\n',
    b'{"step": 3, "layers": 1, "heads": 1, "induction": [0.1], "previous": [0.1, 0.2], "duplicate": [0.1]}\n',
    b'{"step": 3, "layers": 1, "heads": 1, "induction": [NaN], "previous": [0.1], "duplicate": [0.1]}\n',
    b'{"step": -3, "layers": 1, "heads": 1, "induction": [0.1], "previous": [0.1], "duplicate": [0.1]}\n',
    b'{"step": 1e999, "layers": 1, "heads": 1, "induction": [0.1], "previous": [0.1], "duplicate": [0.1]}\n',
    b'{"step": 3, "layers": 1000000000, "heads": 1000000000, "induction": [], "previous": [], "duplicate": []}\n',
    b'{"step": 3, "layers": -1, "heads": -1, "induction": [0.1], "previous": [0.1], "duplicate": [0.1]}\n',
    b'{"step": 3, "layers": 0, "heads": 4, "induction": [], "previous": [], "duplicate": []}\n',
    b'{"step": 3, "layers": 1, "heads": 1, "induction": "1", "previous": {}, "duplicate": null}\n',
)  # fmt: skip


def make_bases(top: Path) -> None:
    """Creates `steering.safetensors`: a direction of the model `gpt2`."""
    from tests.mutations.corpora import _main

    words = [*STEER, "--model", str(top / "gpt2"), "--toward", "a mat", "--away", "a log", "--layer", "1", "--save"]
    assert _main([*words, str(top / "steering.safetensors")]) == 0


def make(draw: random.Random, bases: Path, work: Path, home: Path) -> Case:
    """Creates a case in `work`, or in the run of `home`."""
    return _heads(draw, home) if draw.random() < 0.5 else _steering(draw, bases, work)


def _heads(draw: random.Random, home: Path) -> Case:
    path = home / "runs" / runs.NAME / "heads.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    act = draw.choice(("line", "line", "cut", "json", "json", "json", "bytes", "bytes", "kind", "text"))
    same = False
    if act == "line":  # a damaged line is skipped
        lines.insert(draw.randrange(len(lines) + 1), draw.choice((*LINES, *runs.LINES)))
        path.write_bytes(b"".join(lines))
        same = True
    elif act == "cut":  # the worker is in the middle of a line
        path.write_bytes(b"".join(lines) + lines[-1][: draw.randrange(1, len(lines[-1]) - 2)])
        same = True
    elif act == "json":
        at = draw.randrange(len(lines))
        lines[at] = json.dumps(changes.json_change(draw, json.loads(lines[at]))).encode() + b"\n"
        path.write_bytes(b"".join(lines))
    elif act == "text":
        path.write_text(draw.choice(changes.TEXTS), encoding="utf-8")
    elif act == "kind":
        act = changes.other_kind(draw, path)
    else:
        changes.change_bytes(draw, path)
    return Case(f"heads.jsonl {act}", HEADS, HEADS, same=same, check=_possible)


def _possible(answer: Any) -> str:
    """Whether the answer holds scores only: from 0 to 1, for each head once, in the order of the steps."""
    steps = [one["step"] for one in answer["evaluations"]]
    if steps != sorted(set(steps)) or any(type(step) is not int or step < 0 for step in steps):
        return f"steps {steps}"
    for one in answer["evaluations"]:
        heads = [(head["layer"], head["head"]) for head in one["heads"]]
        count = 1 + max(heads)[0], 1 + max(heads)[1]
        if heads != [(layer, head) for layer in range(count[0]) for head in range(count[1])]:
            return f"heads {heads}"
        scores = [head[name] for head in one["heads"] for name in ("induction", "previous", "duplicate")]
        if not all(0 <= score <= 1 for score in scores):
            return f"scores {scores}"
    return ""


def _steering(draw: random.Random, bases: Path, work: Path) -> Case:
    path = work / "steering.safetensors"
    path.write_bytes((bases / path.name).read_bytes())
    act = draw.choice(("weights", "weights", "weights", "metadata", "width", "kind", "text"))
    if act == "kind":
        act = changes.other_kind(draw, path)
    elif act == "text":
        path.write_text(draw.choice(changes.TEXTS), encoding="utf-8")
    elif act == "weights":
        act = changes.change_weights(draw, path)
    else:
        header, data = changes.header_of(path)
        if act == "metadata":
            name = draw.choice(("format", "layer", "model", "toward", "against"))
            value = draw.choice(changes.ABSURD)
            header["__metadata__"][name] = value if draw.random() < 0.3 else str(value)
        else:  # a model of another width
            count = draw.choice((1, 2, 31, 33, 64, 768))
            data = (data * 1 + b"\0\0\x80?" * count)[: 4 * count]
            header["direction"] |= {"shape": [count], "data_offsets": [0, 4 * count]}
        changes.write_header(path, header, data)
    model = ("--model", str(bases / "gpt2"))
    coefficient = draw.choice((1.0, -2.0, 100.0))
    plain = (*STEER, *model, "--load", str(bases / path.name))
    words = (*STEER, *model, "--load", str(path), "--coefficient", f"{coefficient}")
    return Case(f"steering {act}", words, plain, check=_steered(path, coefficient))


def _steered(path: Path, coefficient: float) -> Callable[[Any], str]:
    """What is wrong with an answer: the norm is that of the vector in the file, and probabilities are such."""

    def check(answer: Any) -> str:
        from safetensors.numpy import load_file

        vector = load_file(path)["direction"].astype("float64")
        norm = math.sqrt(math.fsum(float(value) ** 2 for value in vector))
        if answer["norm"] is None or not math.isclose(answer["norm"], norm, rel_tol=1e-4, abs_tol=1e-6):
            return f"norm {answer['norm']}, not {norm}"
        if answer["coefficient"] != coefficient:
            return f"coefficient {answer['coefficient']}"
        for side in (answer["before"], answer["after"]):
            found = [one["raw_probability"] for one in side["candidates"]]
            if not found or not all(0 <= one <= 1 for one in found) or sum(found) > 1.000001:
                return f"probabilities {found}"
        return ""

    return check
