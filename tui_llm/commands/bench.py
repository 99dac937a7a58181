"""`tui-llm bench`: the speed of this machine, and of a model on it, in parts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from tui_llm.commands.shared import bench_reading
from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import device_option, json_option, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError


def add(commands: Commands) -> None:
    commands.add(
        "bench",
        "measure the speed of this machine, and of a model on it",
        bench,
        _add_options,
        more="Prints medians: tokens per second of decoding, milliseconds per typed token, training steps, and the machine's best rates.",
        examples=(
            "tui-llm bench",
            "tui-llm bench decode --weights int8",
            "tui-llm bench --preset gpt2 --against ctranslate2,llama.cpp,transformers",
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("part", nargs="*", metavar="PART", help="decode, typing, training or machine (default all); peers, the default with --against")  # fmt: skip
    parser.add_argument("--model", metavar="M", help="a shipped model, a run, or a model folder (default nano)")
    parser.add_argument("--preset", metavar="P", help="instead of a model: a preset's shape with random weights, such as gpt2")  # fmt: skip
    parser.add_argument("--weights", metavar="W,W", help="fp32, half, int8 (default fp32; with --against all)")
    parser.add_argument("--against", metavar="PEER,PEER", help="ctranslate2, llama.cpp, transformers: measure decoding and prompts with the same weights, in turn; with the part decode or typing only transformers")  # fmt: skip
    parser.add_argument("--rounds", type=whole, default=5, metavar="N", help="print medians of N rounds (default 5)")
    parser.add_argument("--tokens", type=whole, default=128, metavar="N", help="tokens to generate in decode (default 128)")  # fmt: skip
    parser.add_argument("--threads", type=whole, metavar="N", help="CPU threads (default: torch's)")
    parser.add_argument("--cpu-time", action="store_true", help="measure processor time, not wall-clock time: with --threads 1, other programs on the machine hardly matter")  # fmt: skip
    parser.add_argument("--machine", action="store_true", help="only the machine: matrix products and memory")
    parser.add_argument("--again", action="store_true", help="measure the machine again instead of using saved figures")
    device_option(parser)
    json_option(parser)


class Benchmark(NamedTuple):
    """`name` is its name on the command line and its key in the JSON; `show` prints what `measure` returns."""

    name: str
    measure: Callable[[argparse.Namespace], dict[str, Any]]
    show: Callable[[dict[str, Any]], None]


def bench(options: argparse.Namespace) -> None:
    """Measures the parts that are named, or all. Raises `UserError`."""
    bench_reading.check(options)
    known = {part.name: part for part in PARTS}
    asked = list(dict.fromkeys(["machine"] * options.machine + options.part))
    if unknown := [name for name in asked if name not in known]:
        raise UserError(f"bench has no part {unknown[0]!r}; choose one of: {', '.join(known)}")
    if "peers" in asked and not options.against:
        raise UserError(f"the part peers needs --against with any of: {', '.join(bench_reading.PEERS)}")
    usual = [part for part in PARTS if (part.name == "peers") == bool(options.against)]
    chosen = [known[name] for name in asked] or usual
    if options.threads is not None:
        from tui_llm.llm.model import device

        device.use_threads(options.threads)
    found: dict[str, Any] = {}
    for part in chosen:
        found[part.name] = part.measure(options)
        if not options.json:
            part.show(found[part.name])
    if options.json:
        put_json(found)


def measure_machine(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from tui_llm.llm.model import device, kernels, machine

    place = device.choose(options.device)
    found = asdict(machine.measure(place) if options.again else machine.machine(place))
    if place.type == "cpu":
        found["kernels"] = kernels.measure() if options.again else kernels.kept() or kernels.measure()
    return found


def show_machine(found: dict[str, Any]) -> None:
    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.training.run.gauges import flops_text

    def rate(name: str, text: Callable[[float], str]) -> str:
        least = "≥ " if name in found["disturbed"] else ""
        return "–" if found[name] is None else least + text(found[name])

    def moved(value: float) -> str:
        return f"{value / 1e9:.3g} GB/s"

    rows = [
        ("matrix products, fp32", rate("fp32", flops_text)),
        ("matrix products, bf16", rate("bf16", flops_text)),
        ("memory, reading", rate("read", moved)),
        ("memory, copying", rate("copy", moved)),
    ]
    put(f"{visible(found['device'])}, {found['threads']} threads, torch {found['torch']}")
    put(report.table(("machine", "at best"), rows, left=(0,)))
    if kernels := found.get("kernels"):
        put(_kernels_text(kernels))
    if found["disturbed"]:
        put(
            "≥: other programs were busy during the measurement; nothing is shown relative to these, and the next run measures again"
        )


def measure_peers(options: argparse.Namespace) -> dict[str, Any]:
    from tui_llm.commands.shared import bench_peers

    return bench_peers.measure(options)


def show_peers(found: dict[str, Any]) -> None:
    from tui_llm.commands.shared import bench_peers

    bench_peers.show(found)


def _kernels_text(kernels: dict[str, Any]) -> str:
    """What multiplies by 57 million weights, and how fast; a star marks the one that models are opened with."""
    from tui_llm.facts import report

    rows = [
        (weights, name + (" *" if name == found["kernel"] else ""), f"{one * 1000:.2f} ms", f"{many * 1000:.1f} ms")
        for weights, found in kernels.items()
        for name, (one, many) in found["seconds"].items()
    ]
    return report.table(("weights", "kernel (* chosen)", "1 token", "64 tokens"), rows, left=(0, 1))


PARTS = (
    Benchmark("machine", measure_machine, show_machine),
    Benchmark("decode", bench_reading.measure_decode, bench_reading.show_reading),
    Benchmark("typing", bench_reading.measure_typing, bench_reading.show_reading),
    Benchmark("training", bench_reading.measure_training, bench_reading.show_training),
    Benchmark("peers", measure_peers, show_peers),
)
