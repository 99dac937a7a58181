"""Compares the training step with nanoGPT's: tokens/s, ratios, peak memory, and the loss at equal steps.

nanoGPT (Karpathy, github.com/karpathy/nanoGPT) is not part of this package: its `model.py` is loaded from a path that
the user gives. Its training step is that of its train.py: batch, forward, backward, clip, AdamW, reading the loss.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tui_llm.common.errors import UserError
from tui_llm.llm.data.corpus import Corpus
from tui_llm.llm.model.model import GPT
from tui_llm.training.plan import cost
from tui_llm.training.plan.processes import ALLOCATOR
from tui_llm.training.run.settings import TrainingSettings
from tui_llm.training.worker.loop import Trainer

CPU = torch.device("cpu")
Step = Callable[[], float]  # runs one optimizer step and returns its loss


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's shape and batch for the comparison."""

    layers: int
    heads: int
    width: int
    block_size: int
    batch_size: int
    vocabulary: int

    def settings(self, **fields: Any) -> TrainingSettings:
        return TrainingSettings(
            layers=self.layers, heads=self.heads, width=self.width, block_size=self.block_size,
            batch_size=self.batch_size, learning_rate=1e-3, min_learning_rate=1e-4, warmup_steps=100, beta2=0.99,
            steps=10**6, eval_every=10**9, eval_batches=1, **fields,
        )  # fmt: skip


SHAPES = {
    "baby": Shape(4, 4, 128, 64, 12, 65),
    "nano": Shape(4, 4, 256, 256, 16, 4096),  # as in the preset
    "mid-4k": Shape(6, 6, 384, 256, 8, 4096),
    "mid-50k": Shape(6, 6, 384, 256, 8, 50304),
}
SIDES = ("ours", "nanogpt", "nanogpt-bf16")


def text_ids(vocabulary: int, count: int = 300_000) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Returns token ids to train on.

    For a small vocabulary they are the characters of Python's language reference, ordered by frequency; for one larger
    than 100, random ids with Zipf-distributed frequencies.
    """
    if vocabulary > 100:
        weights = 1 / np.arange(1, vocabulary + 1)
        return np.random.default_rng(1).choice(vocabulary, count, p=weights / weights.sum()).astype(np.uint16)
    import pydoc_data.topics

    data = np.frombuffer("\n".join(pydoc_data.topics.topics.values()).encode("ascii", "replace")[:count], np.uint8)
    order = np.argsort(-np.bincount(data, minlength=256), kind="stable")
    ids = np.empty(256, np.uint16)
    ids[order] = np.minimum(np.arange(256), vocabulary - 1)
    return ids[data]


def trainer(shape: Shape, ids: np.ndarray[Any, np.dtype[np.uint16]], precision: str = "auto", **fields: Any) -> Trainer:
    """Returns a trainer on the CPU with fixed seeds; `fields` are further settings."""
    settings = shape.settings(precision=precision, **fields)
    cut = len(ids) - 4 * shape.block_size * shape.batch_size
    torch.manual_seed(settings.seed)
    model = GPT(cost.shape(settings, shape.vocabulary))
    return Trainer(model, Corpus(ids[:cut], ids[cut:], 1.0, 0.0, ""), settings, CPU)


def ours(shape: Shape, precision: str = "auto", **fields: Any) -> Step:
    """Returns a step of this package's training; `fields` are further settings."""
    steps = trainer(shape, text_ids(shape.vocabulary), precision, **fields).steps()
    return lambda: next(steps).loss


def load(path: Path) -> Any:
    """Loads nanoGPT's model.py as a module. Raises `UserError` if it is not there."""
    path = path / "model.py" if path.is_dir() else path
    spec = importlib.util.spec_from_file_location("nanogpt_model", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UserError(f"there is no model.py at {path}; give the folder of a clone of github.com/karpathy/nanoGPT")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module  # `dataclass` looks the module up
    spec.loader.exec_module(module)
    return module


def nanogpt(shape: Shape, path: Path, *, bfloat16: bool = False, compiled: bool = False) -> Step:
    """Returns a step of nanoGPT's recipe (fp32, eager; no bias, no dropout), or with bf16 autocast or torch.compile."""
    ids, T, B = text_ids(shape.vocabulary), shape.block_size, shape.batch_size
    raw, optimizer = _nanogpt(load(path), shape, bias=False)
    model = torch.compile(raw) if compiled else raw

    def batch() -> tuple[torch.Tensor, torch.Tensor]:  # as in its train.py
        starts = torch.randint(len(ids) - T, (B,))
        x = torch.stack([torch.from_numpy(ids[i : i + T].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(ids[i + 1 : i + 1 + T].astype(np.int64)) for i in starts])
        return x, y

    def step() -> float:
        return _step(model, optimizer, *batch(), bfloat16=bfloat16)

    return step


def _nanogpt(module: Any, shape: Shape, *, bias: bool) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(1)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints parameter counts
        model = module.GPT(
            module.GPTConfig(block_size=shape.block_size, vocab_size=shape.vocabulary, n_layer=shape.layers,
                             n_head=shape.heads, n_embd=shape.width, dropout=0.0, bias=bias)
        )  # fmt: skip
        return model, model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")


def _step(model: Any, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, *, bfloat16: bool) -> float:
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        _, loss = model(x, y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def make(side: str, shape: Shape, path: Path, *, compiled: bool = False) -> Step:
    """Returns a step of one of `SIDES`."""
    if side == "ours":
        return ours(shape)
    return nanogpt(shape, path, bfloat16=side == "nanogpt-bf16", compiled=compiled and side == "nanogpt-bf16")


class SideProcess:
    """One side in its own process, with the environment that its users have. Each call runs one step there.

    OwnBackend gets the allocator settings that `tui-llm train` gives its worker, nanoGPT none.
    """

    CODE = (
        "import sys; from pathlib import Path; import torch; from tui_llm.training.worker import versus as v; "
        "name, side, path, compiled, threads = sys.argv[1:]; torch.set_flush_denormal(True); "
        "torch.set_num_threads(int(threads)); step = v.make(side, v.SHAPES[name], Path(path), compiled=compiled == '1'); "
        "[print(step(), flush=True) for _ in sys.stdin]"
    )

    def __init__(self, name: str, side: str, path: Path, compiled: bool) -> None:
        bare = {key: value for key, value in os.environ.items() if key not in ALLOCATOR}
        self.side = side
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, name, side, str(path), str(int(compiled)), str(torch.get_num_threads())],
            env={**bare, **(ALLOCATOR if side == "ours" else {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            print(file=self.process.stdin, flush=True)
            return float(self.process.stdout.readline())
        except (OSError, ValueError):
            raise UserError(f"{self.side} could not be measured: its process ended; see above why") from None

    def close(self) -> None:
        self.process.communicate()


def rounds(steps: dict[str, Step], count: int, each: int, clock: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Yields for each round the seconds of a step of each side.

    In a round, every side runs `each` steps in turn; the order rotates, because other load on the machine varies.
    Before the first round, each side runs two steps that are not counted.
    """
    for step in steps.values():
        step(), step()
    names = list(steps)
    for number in range(count):
        taken = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = clock()
            for _ in range(each):
                steps[name]()
            taken[name] = (clock() - began) / each
        yield taken


def compare(name: str, path: Path, *, count: int = 9, each: int = 3, cpu: bool = False, compiled: bool = False,
            apart: bool = False, sides: Sequence[str] = SIDES) -> dict[str, Any]:  # fmt: skip
    """Returns tokens/s of each side (median), and ours ÷ theirs (median over rounds of the ratio within a round).

    `sides`: those that are measured, ours first.

    `cpu` uses this process's CPU time instead of wall-clock time, which on one thread hardly depends on other load.
    With `apart`, see `SideProcess`; otherwise both sides use this process's allocator settings.
    """
    shape = SHAPES[name]
    processes = {side: SideProcess(name, side, path, compiled) for side in sides} if apart else {}
    try:
        steps: dict[str, Step] = {
            side: processes.get(side) or make(side, shape, path, compiled=compiled) for side in sides
        }
        taken = list(rounds(steps, count, each, time.process_time if cpu else time.perf_counter))
    finally:
        for process in processes.values():
            process.close()
    tokens = shape.batch_size * shape.block_size
    return {
        "shape": name,
        "apart": apart,
        "compiled": compiled,
        "clock": "cpu" if cpu else "wall",
        "threads": torch.get_num_threads(),
        "tokens_per_second": {side: tokens / statistics.median(t[side] for t in taken) for side in sides},
        "ratio": {side: statistics.median(t[side] / t["ours"] for t in taken) for side in sides[1:]},
    }


def peak(name: str, side: str, path: Path, steps: int = 2) -> float:
    """Returns the peak memory (ru_maxrss) in bytes of a process that runs some steps, including the import of torch.

    Both sides get the worker's environment.
    """
    code = (
        "import resource, sys; from pathlib import Path; from tui_llm.training.worker import versus as v; n, s, p, k = sys.argv[1:]; "
        "f = v.make(s, v.SHAPES[n], Path(p)); [f() for _ in range(int(k))]; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, side, str(path), str(steps)],
        env={**ALLOCATOR, **os.environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"{side} could not be measured: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def losses(path: Path, steps: int = 500, name: str = "baby") -> dict[str, Any]:
    """Compares training losses: ours (bf16 or fp32, as `auto` chooses) and nanoGPT's in fp32, in nats per token.

    Both use the same batches, initial weights and learning rates. The results are means over ten parts of the run.
    (nanoGPT has biases, as GPT-2; its GELU is the exact one, ours is GPT-2's tanh approximation.)
    """
    shape = SHAPES[name]
    mine = trainer(shape, text_ids(shape.vocabulary))
    theirs, optimizer = _nanogpt(load(path), shape, bias=True)
    _copy_weights(mine.model, theirs)
    pairs = []
    for record in mine.steps():
        for group in optimizer.param_groups:
            group["lr"] = record.lr
        pairs.append((record.loss, _step(theirs, optimizer, *mine.batches.batch(record.step - 1), bfloat16=False)))
        if record.step == steps:
            break
    parts = np.array_split(np.array(pairs), min(10, len(pairs)))
    return {
        "steps": steps,
        "precision": mine.precision,
        "ours": [round(float(p[:, 0].mean()), 4) for p in parts],
        "nanogpt": [round(float(p[:, 1].mean()), 4) for p in parts],
        "noise": round(float(np.std(np.diff(parts[-1][:, 1]) / math.sqrt(2)) / math.sqrt(len(parts[-1]))), 4),
    }


def _copy_weights(model: GPT, theirs: Any) -> None:
    names = {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj",
             "norm1": "ln_1", "norm2": "ln_2", "blocks.": "transformer.h.", "tokens": "transformer.wte",
             "positions": "transformer.wpe", "norm.": "transformer.ln_f."}  # fmt: skip
    found = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, value in model.weights():
            for mine, other in names.items():
                name = name.replace(mine, other)
            found[name].copy_(value)


def table(result: dict[str, Any]) -> str:
    """Formats the result of `compare` in one line."""
    speed, ratio = result["tokens_per_second"], result["ratio"]
    cells = [f"{side} {one:,.0f}" for side, one in speed.items()]
    named = {"nanogpt": "; ours ÷ nanoGPT's recipe", "nanogpt-bf16": ", ÷ its bf16"}
    return (
        f"{result['shape']:8} tokens/s: {', '.join(cells)}"
        + "".join(f"{words} {ratio[side]:.2f}" for side, words in named.items() if side in ratio)
        + f" ({result['threads']} threads, {result['clock']} time"
        f"{', its bf16 compiled' if result['compiled'] else ''}{', each side started as its users do' if result['apart'] else ''})"
    )


def main(options: Any) -> None:
    """Prints the measurements of `scripts/bench_training.py`: a line for each, or with --json a JSON object."""
    torch.set_flush_denormal(True)
    if options.threads:
        torch.set_num_threads(options.threads)
    path = Path(options.nanogpt)
    sides = [side for side in SIDES if side == SIDES[0] or side in options.sides]

    def put(value: dict[str, Any], line: str) -> None:
        print(json.dumps(value) if options.json else line, flush=True)

    for name in options.shapes:
        found = compare(name, path, count=options.rounds, each=options.steps, cpu=options.cpu_time, compiled=options.compile,
                        apart=options.apart, sides=sides)  # fmt: skip
        put(found, table(found))
    if options.memory:
        bytes_ = {side: peak(options.memory, side, path) for side in sides}
        ratios = [bytes_["ours"] / bytes_[side] for side in sides[1:]]
        put({"shape": options.memory, "peak_bytes": bytes_, "ratio": ratios[0] if ratios else None},
            f"{options.memory:8} peak memory: " + ", ".join(f"{s} {b / 2**30:.2f} GiB" for s, b in bytes_.items())
            + "".join(f"; ours ÷ {side} {ratio:.2f}" for side, ratio in zip(sides[1:], ratios, strict=True)))  # fmt: skip
    if options.losses:
        curve = losses(path, options.losses)
        put(curve, f"loss over {curve['steps']} steps in ten parts: ours ({curve['precision']}) {curve['ours']}, nanoGPT fp32 "
                   f"{curve['nanogpt']}; noise of a part's mean {curve['noise']}")  # fmt: skip
