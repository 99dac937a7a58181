"""Try and measure tui-llm on this machine's GPU: one command, about six minutes on an H100, for any machine with CUDA and torch.

    python scripts/gpu.py [--out FILE] [--minutes M] [--only PART …] [--nanogpt PATH] [--device cuda] [--small]

It checks logits against the CPU's, every instrument, decoding with the cache, a run that is killed and resumed, running out of
memory, torch.compile, one rank of DDP, and the gauges; it measures the training and decoding of GPT-2 124M beside transformers
and, with --nanogpt, a clone of nanoGPT. Each part is a process of its own with a limit of time, so that one that fails or hangs
leaves the others alone; the file is written after each. It needs neither textual nor tiktoken nor a network, runs in a clone
that is not installed, and on slices (MIG). --device cpu --small tries the script itself.
"""

# ruff: noqa: E402 (a clone that is not installed is made importable first)

from __future__ import annotations

import argparse
import functools
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import gpu_gauges
import gpu_parts
import gpu_speed
import torch
from gpu_parts import PartOptions
from gpu_report import GpuRow, PartReport, run_apart, save

from tui_llm.training.run.run_lock import worker_pid

Part = Callable[[PartReport, PartOptions], None]
MINUTES = 6.0
PARTS: dict[str, tuple[Part, float]] = {  # what it does, and its limit in seconds where all have MINUTES
    "machine": (gpu_parts.machine_facts, 40),
    "logits": (gpu_parts.logits, 40),
    "decode": (gpu_parts.decode, 40),
    "instruments": (gpu_parts.instruments, 60),
    "training": (gpu_speed.training, 200),
    "decoding": (gpu_speed.decoding, 60),
    "run": (gpu_parts.a_run, 90),
    "memory": (gpu_parts.out_of_memory, 60),
    "compile": (gpu_parts.compiling, 90),
    "gauges": (gpu_gauges.gauges, 30),
}


def head(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "machine": platform.platform(),
        "device": options.device,
        "small": options.small,
        "began": time.strftime("%F %T"),
    }


def no_device(options: PartOptions) -> str:
    """Why the device can't be used, asked in a process of its own; empty if it can."""
    report = PartReport("device", options.folder / "device.jsonl")

    def ask(report: PartReport) -> None:
        try:
            torch.zeros(1, device=options.place)
        except Exception as error:
            report.skip("device", str(error))

    return "".join(row.problem for row in run_apart(report, ask, 60, options.folder / "log"))


def end_workers(folder: Path) -> None:
    """Ends workers that a part left behind: they are in sessions of their own."""
    from tui_llm.training.run.run import Run

    for path in (folder / "runs").glob("*/"):
        run = Run(path)
        if run.alive() and (pid := worker_pid(run.path)) is not None:
            os.kill(pid, 9)


def parser() -> argparse.ArgumentParser:
    """Returns the script's options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script")
    options.add_argument("--small", action="store_true", help="tiny shapes, one round")
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    options.add_argument("--out", metavar="FILE", default="gpu.json", help="default: gpu.json")
    options.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help="for all parts; a part's limit is in proportion; what does not fit is left out",
    )
    options.add_argument("--nanogpt", metavar="PATH", default="", help="a clone of nanoGPT to compare with")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 if something failed or missed its goal."""
    options = parser().parse_args(arguments)
    out, rows = Path(options.out).absolute(), list[GpuRow]()
    if not out.parent.is_dir():
        parser().error(f"there is no folder {out.parent}; give another --out")
    nanogpt = str(Path(options.nanogpt).absolute()) if options.nanogpt else ""
    folder, facts, began = gpu_parts.scratch(), head(options), time.monotonic()
    given = PartOptions(options.device, options.small, nanogpt, folder)
    if (problem := no_device(given)) != "":
        shutil.rmtree(folder, ignore_errors=True)
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(f"torch {facts['torch']}, CUDA {facts['cuda']}, Python {facts['python']}, {facts['machine']}", flush=True)
    try:
        for name in options.only:
            work, limit = PARTS[name]
            report = PartReport(name, folder / f"{name}.jsonl")
            left = 60 * options.minutes - (time.monotonic() - began)
            if left < 5:
                report.skip(
                    "the whole part", f"the {options.minutes:g} minutes are over; give more --minutes, or --only {name}"
                )
                found = report.rows()
            else:
                found = list(
                    run_apart(
                        report,
                        functools.partial(with_options, work, given),
                        min(limit * options.minutes / MINUTES, left),
                        folder / "log",
                    )
                )
            end_workers(folder)
            rows += found
            for row in found:
                print(row.line(), flush=True)
            save(out, {**facts, "seconds": round(time.monotonic() - began, 1)}, rows)
    finally:
        shutil.copy(folder / "log", out.with_suffix(".log")) if (folder / "log").exists() else None
        shutil.rmtree(folder, ignore_errors=True)
    counts = {
        word: sum(row.verdict.startswith(word) for row in rows) for word in ("met", "NOT MET", "FAILED", "not measured")
    }
    print(
        ", ".join(f"{count} {word.lower()}" for word, count in counts.items()),
        f"in {time.monotonic() - began:.0f} s: {out}",
    )
    return 1 if counts["NOT MET"] or counts["FAILED"] else 0


def with_options(work: Part, options: PartOptions, report: PartReport) -> None:
    work(report, options)


if __name__ == "__main__":
    raise SystemExit(main())
