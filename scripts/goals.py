"""Print every goal for the speed and the memory of tui-llm with its figure on this machine: met, not met, or not measured.

    python scripts/goals.py [--avx2] [--nanogpt PATH] [--nanochat PATH] [--gguf FILE] [--only NAME …] [--quick]

The scripts and commands that measure are run one after another, each as its users run it. --avx2 limits torch and its
libraries to AVX2, as on most laptops; llama.cpp has to be built for it: CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=OFF".
What needs a clone, a file (SmolLM2-135M as a quantized GGUF) or the other programs (`pip install 'tui-llm[peers]'`) is not
measured without. Run it on an idle machine; --quick measures little of each, to try the script.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import figures_growth
import figures_memory
import figures_screen
import start

SCRIPTS = Path(__file__).parent
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
}  # fmt: skip
AT_MOST, AT_LEAST = "≤", "≥"
COMPARE: dict[str, Callable[[float, float], bool]] = {AT_MOST: operator.le, AT_LEAST: operator.ge}
CPU = "import torch, os; print(torch.backends.cpu.get_cpu_capability(), torch.__version__, torch.get_num_threads())"


class NotMeasured(Exception):
    """Why there is no figure, and what to do for one."""


@dataclass(frozen=True)
class Goal:
    """A figure and its goal; `problem` says why there is no figure."""

    name: str
    sign: str
    goal: float
    figure: float | None = None
    problem: str = ""

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return f"not measured: {self.problem}"
        return "met" if COMPARE[self.sign](self.figure, self.goal) else "NOT MET"

    def line(self) -> str:
        figure = "–" if self.figure is None else f"{self.figure:.2f}"
        return f"{self.name:62} {figure:>7}   {self.sign} {self.goal:<5g} {self.verdict}"


def measured(*command: str) -> str:
    """Runs a command of this Python and returns its output. Raises `NotMeasured`."""
    made = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if made.returncode:
        lines = made.stderr.strip().splitlines()
        raise NotMeasured(lines[-1].removeprefix("error: ") if lines else f"exit code {made.returncode}")
    return made.stdout


def script(name: str, *arguments: str) -> Any:
    return json.loads(measured(str(SCRIPTS / name), *arguments, "--json"))


# ── each group of goals ──────────────────────────────────────────────────────────────────────────────────────────────


def starting(options: argparse.Namespace) -> Iterator[Goal]:
    wanted = {f"{name} ÷ {base}": (name, goal) for name, (goal, base) in start.GOALS.items()}
    try:
        found, problem = script("start.py", "1" if options.quick else "5"), ""
    except NotMeasured as error:
        found, problem = {}, str(error)
    for text, (name, goal) in wanted.items():
        yield Goal(text, AT_MOST, goal, found.get(name), problem)


def screen(options: argparse.Namespace) -> Iterator[Goal]:
    try:
        found = script("figures_screen.py", "--keys", "4" if options.quick else "40")
        times, problem = {one["name"]: figures_screen.KeyTimes(**one) for one in found}, ""
    except NotMeasured as error:
        times, problem = {}, str(error)
    for name, goal in figures_screen.GOALS.items():
        one = times.get(name)
        yield Goal(f"{name}: processor time ÷ redrawing a Static", AT_MOST, goal, one and one.ratio, problem)
        spread = f"{name}: its 95th percentile ÷ its median"
        yield Goal(spread, AT_MOST, figures_screen.SPREAD, one and one.spread, problem)


def memory(options: argparse.Namespace) -> Iterator[Goal]:
    try:
        found = script("figures_memory.py", *(("--only", "nano") if options.quick else ()))
    except NotMeasured as error:
        yield Goal("memory", AT_MOST, 1.3, None, str(error))
        return
    for one in (figures_memory.MemoryFigure(**row) for row in found):
        yield Goal(one.name, AT_MOST, one.goal, one.ratio)


def growth(options: argparse.Namespace) -> Iterator[Goal]:
    name = "growth: steps that grow faster than bytes or operations"
    try:
        found = script("figures_growth.py", *(("--quick", "--rounds", "1") if options.quick else ()))
    except NotMeasured as error:
        yield Goal(name, AT_MOST, 0, None, str(error))
        return
    faster = figures_growth.grows_faster([figures_growth.GrowthPoint(**one) for one in found])
    yield Goal(f"{name}{': ' if faster else ''}{'; '.join(faster)}", AT_MOST, 0, len(faster))


KINDS = ("fp32", "half", "int8")
PEERS = {  # work, weights, length: the sides that count; CTranslate2 has no 16-bit type on a CPU
    **{("decode", weights, 64): ("ctranslate2", "llama.cpp") for weights in KINDS},
    **{("prompt", weights, length): ("ctranslate2",) for weights in ("fp32", "int8") for length in (64, 512)},
    **{("prompt", "half", length): ("llama.cpp",) for length in (64, 512)},
}


def peers(options: argparse.Namespace) -> Iterator[Goal]:
    """Decoding and prompts of GPT-2 124M's shape, beside CTranslate2 and llama.cpp."""
    for kind in options.weights:
        yield from _beside_peers(kind, options)


def _beside_peers(kind: str, options: argparse.Namespace) -> Iterator[Goal]:
    size = ("--preset", "toy" if options.quick else "gpt2", "--rounds", "1" if options.quick else str(options.rounds))
    rows: dict[tuple[str, str, int], dict[str, float]] = {}
    problem, wide = "no other program has such weights", ""
    try:
        text = measured("-m", "tui_llm", "bench", *size, "--weights", kind, "--against", "ctranslate2,llama.cpp", "--json")  # fmt: skip
        for found in json.loads(text)["peers"]["kinds"]:
            rows |= {(row["work"], found["weights"], row["prompt"]): row["seconds"] for row in found["rows"]}
            built = found["sides"].get("llama.cpp", {}).get("instructions", "")
            if _limited() and "AVX512" in built:
                wide = " (llama.cpp: AVX-512)"
    except NotMeasured as error:
        problem = str(error)
    for (work, weights, length), sides in PEERS.items():
        if weights != kind:
            continue
        seconds = rows.get((work, weights, length), {})
        others = {side: seconds[side] for side in sides if side in seconds}
        best = min(others, key=lambda side: others[side], default="")
        name = f"{work}, {weights}, {length} tokens ÷ {best or ' or '.join(sides)}{wide if best == 'llama.cpp' else ''}"
        yield Goal(name, AT_LEAST, 1.0, others[best] / seconds["here"] if best else None, problem)


def gguf(options: argparse.Namespace) -> Iterator[Goal]:
    name, found, problem = "GGUF, quantized: decode ÷ llama.cpp alone", {}, "give SmolLM2-135M's file as --gguf FILE"
    if options.gguf:
        try:
            found = script("figures_gguf.py", options.gguf, *(("--rounds", "1") if options.quick else ()))
        except NotMeasured as error:
            problem = str(error)
    yield Goal(name, AT_LEAST, 0.9, found.get("ratio"), problem)


def accuracy(options: argparse.Namespace) -> Iterator[Goal]:
    """int8 against fp32. 124M's weights do not ship: nano only."""
    found, problem = {}, ""
    try:
        found = script("figures_int8.py")
    except NotMeasured as error:
        problem = str(error)
    yield Goal(
        "int8, nano's held-out text: top-1 as fp32, %", AT_LEAST, 99, 100 * found["top-1"] if found else None, problem
    )
    yield Goal(
        "int8, nano's held-out text: KL, in 1/1000 nats", AT_MOST, 1, 1000 * found["KL"] if found else None, problem
    )


def training(options: argparse.Namespace) -> Iterator[Goal]:
    least = 1.6 if _limited() or "AVX512" not in options.capability else 2.0
    goals = {
        "baby": Goal("training baby: tokens/s ÷ nanoGPT's recipe", AT_LEAST, least),
        "nano": Goal("training nano: share of the machine's peak (MFU)", AT_LEAST, 0.8),
        "memory": Goal("training mid, V 50,304: peak memory ÷ nanoGPT's recipe", AT_MOST, 0.6),
        "nanochat": Goal("training d4: tokens/s ÷ nanochat", AT_LEAST, 1.0),
    }
    for name, goal in goals.items():
        clone = "nanochat" if name == "nanochat" else "nanoGPT"
        path = getattr(options, clone.lower())
        try:
            if not path:
                raise NotMeasured(f"give a clone of github.com/karpathy/{clone} as --{clone.lower()} PATH")
            yield replace(goal, figure=_training_figure(name, path, options.quick))
        except NotMeasured as error:
            yield replace(goal, problem=str(error))


def _training_figure(name: str, path: str, quick: bool) -> float:
    """Raises `NotMeasured`."""
    few = ("--rounds", "1", "--steps", "1") if quick else ()
    if name == "nanochat":
        return float(script("bench_nanochat.py", "--nanochat", path, "--rows", "2", "--eager", *few)["ratio"])
    if name == "memory":
        return float(
            script("bench_training.py", "--nanogpt", path, "--sides", "nanogpt", "--shapes", "--memory", "mid-50k")[
                "ratio"
            ]
        )
    sides = ("nanogpt",) if name == "baby" else ()
    many = ("--rounds", "15", "--steps", "10") if name == "baby" else ()  # its steps take a thirtieth of a second
    found = script(
        "bench_training.py", "--nanogpt", path, "--sides", *sides, "--shapes", name, *(few or ("--apart", *many))
    )
    if name == "baby":
        return float(found["ratio"]["nanogpt"])
    machine = json.loads(measured("-m", "tui_llm", "bench", "machine", "--json"))["machine"]
    return float(found["tokens_per_second"]["ours"] * _flops() / max(machine["fp32"], machine["bf16"] or 0))


def _limited() -> bool:
    return os.environ.get("ATEN_CPU_CAPABILITY") == "avx2"


def _flops() -> float:
    """Returns the floating-point operations per token of training nano's shape."""
    from tui_llm.training.plan import cost
    from tui_llm.training.worker import versus

    shape = versus.SHAPES["nano"]
    return cost.flops_per_token(cost.shape(shape.settings(), shape.vocabulary), shape.block_size)


GROUPS = {
    "start": starting,
    "screen": screen,
    "memory": memory,
    "growth": growth,
    "peers": peers,
    "gguf": gguf,
    "accuracy": accuracy,
    "training": training,
}


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--avx2", action="store_true", help="under the variables that limit torch, oneDNN and MKL to AVX2"
    )
    parser.add_argument("--nanogpt", metavar="PATH", help="a clone of nanoGPT: measure training too")
    parser.add_argument("--nanochat", metavar="PATH", help="a clone of nanochat")
    parser.add_argument("--gguf", metavar="FILE", help="SmolLM2-135M as a quantized GGUF file")
    parser.add_argument("--rounds", type=int, default=5, help="beside the other programs")
    parser.add_argument("--weights", nargs="+", choices=KINDS, default=KINDS, help="beside the other programs")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--quick", action="store_true", help="measure little of each, to try the script")
    options = parser.parse_args()
    if options.avx2:
        os.environ.update(AVX2)
    options.capability, version, threads = measured("-c", CPU).rsplit(maxsplit=2)
    load = f"load {statistics.fmean(os.getloadavg()):.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{cpu_name()}, {os.cpu_count()} CPUs, torch {version} with {options.capability}, {threads} threads, {load}")
    counts = dict.fromkeys(("met", "NOT MET", "not measured"), 0)
    for name in options.only:
        for goal in GROUPS[name](options):
            counts[goal.verdict.split(":")[0]] += 1
            print(goal.line(), flush=True)
    print(", ".join(f"{count} {verdict.lower()}" for verdict, count in counts.items()))


if __name__ == "__main__":
    main()
