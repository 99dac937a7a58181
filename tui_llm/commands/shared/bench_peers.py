"""`tui-llm bench --against`: this package and other programs on the same weights, in turn, in one table."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared import bench_reading
from tui_llm.commands.shared.output import put
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.llm.model.shape import GPTConfig

PROMPTS = (64, 512)
PAUSE = 0.25  # seconds before a turn: idle threads of Intel's OpenMP, CTranslate2's, spin for 0.2 s
CHECKED = 32  # tokens of greedy text that are compared
# The largest difference of a side's logits from ours in fp32: the root mean square over the vocabulary, divided by that of
# our logits around their mean. Another model is at 1.
BOUNDS = {"fp32": 0.01, "half": 0.05, "int8": 0.15}


class RemoteSide:
    """A side in its process (`adapters.peers`). All but `close` raise `UserError` if it fails."""

    def __init__(self, name: str, source: Path, kind: str, threads: int, clock: str) -> None:
        from tui_llm.llm.adapters.peers import log_of

        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CT2_VERBOSE": "1"}
        if limited_to_avx2():
            environment["CT2_FORCE_CPU_ISA"] = "AVX2"
        with log_of(source, name, kind).open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tui_llm.llm.adapters.peers", name, str(source), kind, str(threads), clock],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True,
            )  # fmt: skip
        self.facts: dict[str, Any] = {}

    def wait(self) -> None:
        """Until the model is open: several sides open theirs at the same time."""
        self.facts = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"{self.name} ended while it ran this model (exit code {self._process.wait()})")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            from tui_llm.llm.adapters.peers import EXTRA

            hint = "" if self.name == "here" else f"; leave it out of --against, or install it again: {EXTRA}"
            raise UserError(f"{self.name} can't run this model: {found['error']}{hint}")
        return found

    def ask(self, work: str, ids: list[int], count: int = 0) -> dict[str, Any]:
        """work: write, prompt, or logits (which come back)."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps({"work": work, "ids": ids, "count": count}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.terminate()
        self._process.wait()


def limited_to_avx2() -> bool:
    """Whether torch is told not to use AVX-512: then each side is, where it has a switch."""
    return os.environ.get("ATEN_CPU_CAPABILITY", "").lower() == "avx2"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from tui_llm.llm.adapters import peers
    from tui_llm.llm.model import checkpoint, device
    from tui_llm.llm.model.model import GPT

    names, (name, config, folder) = bench_reading.peers_of(options), bench_reading.shape_of(options)
    if not config.plain:
        raise UserError(
            f"{name} has architecture switches, and the peers are given a GPT-2; measure it without --against"
        )
    threads = options.threads or torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="tui-llm-bench-") as scratch:
        source = Path(scratch) / "model"
        if folder is None:
            torch.manual_seed(0)
            peers.write_source(source, GPT(config))
        else:
            peers.write_source(source, checkpoint.load(folder, device.choose("cpu")))
        found = [_measure_kind(kind, names, config, source, threads, options) for kind in bench_reading.kinds(options)]
    return {
        "model": name, "parameters": config.parameters(), "threads": threads, "rounds": options.rounds,
        "clock": "cpu" if options.cpu_time else "wall", "kinds": found,
    }  # fmt: skip


def _measure_kind(
    kind: str, names: tuple[str, ...], config: GPTConfig, source: Path, threads: int, options: argparse.Namespace
) -> dict[str, Any]:
    """All sides with one kind of weights: checks that they compute the same model, then measures."""
    from tui_llm.llm.adapters.peers import OURS, TYPES
    from tui_llm.llm.learn import speed

    clock = "cpu" if options.cpu_time else "wall"
    amounts = speed.Amounts.of(config.context, written=options.tokens)
    ids = random.Random(0).choices(range(config.vocabulary), k=max(PROMPTS))
    with ExitStack() as stack:

        def started(name: str, kind: str) -> RemoteSide:
            side = RemoteSide(name, source, TYPES[name][kind], threads, clock)
            stack.callback(side.close)
            return side

        sides = {name: started(name, kind) for name in (OURS, *names) if kind in TYPES[name]}
        reference = sides[OURS] if kind == "fp32" else started(OURS, "fp32")
        for side in {*sides.values(), reference}:
            side.wait()
        facts = _checked(kind, sides, reference, ids[: amounts.prompt], min(CHECKED, amounts.written))
        if reference is not sides[OURS]:
            reference.close()  # here, to free its memory
        rows = []
        prompts = [length for length in PROMPTS if length <= config.context]
        for work, length in (("decode", amounts.prompt), *(("prompt", length) for length in prompts)):
            count = amounts.written if work == "decode" else 1
            request = ("write" if work == "decode" else "prompt", ids[:length], amounts.written)
            taken = list(
                speed.in_turn({name: _turn(side, request, count) for name, side in sides.items()}, options.rounds)
            )
            rows.append(_row(work, length, count, taken))
    return {"weights": kind, "sides": facts, "rows": rows}


def _turn(side: RemoteSide, request: tuple[str, list[int], int], count: int) -> Any:
    def turn() -> tuple[float, int]:
        time.sleep(PAUSE)
        return side.ask(*request)["seconds"], count

    return turn


def _checked(
    kind: str, sides: dict[str, RemoteSide], reference: RemoteSide, prompt: list[int], count: int
) -> dict[str, Any]:
    """Each side's version, type, instruction set, distance of its logits from ours in fp32, and how many of its greedy
    tokens are ours. Raises `UserError` if the distance is over the bound."""
    from tui_llm.llm.adapters.peers import TYPES

    text = reference.ask("write", prompt, count)["ids"]
    wanted = [reference.ask("logits", prompt + text[:length])["logits"] for length in (0, count)]
    facts = {}
    for name, side in sides.items():
        made = [side.ask("logits", prompt + text[:length])["logits"] for length in (0, count)]
        off = max(distance(one, right) for one, right in zip(made, wanted, strict=True))
        if not off <= BOUNDS[kind]:
            raise UserError(
                f"{name} computes another model in {TYPES[name][kind]}: its logits are {off:.1%} from ours in fp32, and "
                f"{BOUNDS[kind]:.0%} is the bound; leave it out of --against"
            )
        own = side.ask("write", prompt, count)["ids"]
        same = next((at for at, (one, right) in enumerate(zip(own, text, strict=True)) if one != right), count)
        facts[name] = {"type": TYPES[name][kind], **side.facts, "logits_off": off, "greedy_same": same, "greedy": count}
    return facts


def distance(logits: list[float], right: list[float]) -> float:
    """‖a − b‖ ÷ ‖b‖, both less their mean, which a softmax does not see."""
    import numpy as np

    a, b = np.asarray(logits, np.float64), np.asarray(right, np.float64)
    a, b = a - a.mean(), b - b.mean()
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30))


def _row(work: str, length: int, count: int, taken: list[dict[str, float]]) -> dict[str, Any]:
    from tui_llm.llm.adapters.peers import OURS
    from tui_llm.llm.learn import speed

    seconds = speed.medians(taken)
    others = [name for name in seconds if name != OURS]
    best = min(others, key=lambda name: seconds[name], default=None)
    spread = {name: [min(one[name] for one in taken), max(one[name] for one in taken)] for name in seconds}
    ratios = [one[best] / one[OURS] for one in taken] if best else []
    return {
        "work": work, "prompt": length, "tokens": count, "seconds": seconds, "spread": spread, "fastest_peer": best,
        "ratio": statistics.median(ratios) if ratios else None,
        "ratio_spread": [min(ratios), max(ratios)] if ratios else None,
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    from tui_llm.common.display import visible
    from tui_llm.facts import report

    names = list(dict.fromkeys(name for kind in found["kinds"] for name in kind["sides"]))
    put(f"{visible(found['model'])}: {found['parameters']:,} parameters; the same weights on each side")
    put(
        f"medians (and the range) of {found['rounds']} rounds in turn, {found['clock']} time, {found['threads']} threads, each side in "
        "a process of its own"
    )
    rows = []
    for kind in found["kinds"]:
        for row in kind["rows"]:
            cells = [_cell(row, name) for name in names]
            ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}× {row['fastest_peer']}"
            work = f"decode after {row['prompt']}" if row["work"] == "decode" else f"prompt of {row['prompt']}"
            rows.append((kind["weights"], work, *cells, ratio))
    put(report.table(("weights", "work", *names, "here ÷ fastest peer"), rows, left=(0, 1)))
    for line in notes(found):
        put(visible(line))


def _cell(row: dict[str, Any], name: str) -> str:
    if name not in row["seconds"]:
        return "–"
    low, high = row["spread"][name]
    if row["work"] == "decode":
        return f"{1 / row['seconds'][name]:,.1f} ({1 / high:,.1f}–{1 / low:,.1f}) tokens/s"
    return f"{row['seconds'][name] * 1000:,.0f} ({low * 1000:,.0f}–{high * 1000:,.0f}) ms"


def notes(found: dict[str, Any]) -> Iterator[str]:
    """What was compared: types, agreement, versions and instruction sets."""
    for kind in found["kinds"]:
        each = ", ".join(
            f"{name} {side['type']} {side['logits_off']:.2%} ({side['greedy_same']} of {side['greedy']})"
            for name, side in kind["sides"].items()
        )
        yield f"{kind['weights']}: logits off ours in fp32 by at most {BOUNDS[kind['weights']]:.0%} (first greedy tokens that are the same): {each}"
    sides = {name: side for kind in found["kinds"] for name, side in kind["sides"].items()}
    yield "versions: " + ", ".join(f"{name} {side['version']}" for name, side in sides.items())
    yield "instructions: " + ", ".join(f"{name} {side['instructions']}" for name, side in sides.items())
    sets = {name: "AVX512" in side["instructions"].upper().replace("-", "") for name, side in sides.items()}
    if len(set(sets.values())) > 1:
        more, less = ([name for name, wide in sets.items() if wide is one] for one in (True, False))
        yield f"not the same instruction set: {', '.join(more)} ran with AVX-512, {', '.join(less)} without; compare with care"
    if "ctranslate2" in sides:
        yield "ctranslate2 names the instruction set of its own kernels; the library of its matrix products chooses its own"
