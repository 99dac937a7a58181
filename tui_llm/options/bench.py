"""How fast this machine is."""

from __future__ import annotations

from tui_llm.options import AddCommand
from tui_llm.options.shared import json_option, whole


def add(command: AddCommand) -> None:
    bench = command("bench", "measure how fast this machine is, and a model on it", "bench")
    bench.add_argument("part", nargs="*", metavar="PART", help="decode, typing, training or machine (default all)")
    bench.add_argument("--model", metavar="M", help="a shipped model, a run, or a model folder (default nano)")
    bench.add_argument("--preset", metavar="P", help="instead: a preset's shape with random weights, such as gpt2")
    bench.add_argument("--weights", metavar="W,W", help="fp32, half, int8 (default fp32; with --against all)")
    bench.add_argument("--against", metavar="PEER", help="transformers: the same weights there, in turn")
    bench.add_argument("--rounds", type=whole, default=5, metavar="N", help="medians of so many (default 5)")
    bench.add_argument("--tokens", type=whole, default=128, metavar="N", help="written in decode (default 128)")
    bench.add_argument("--threads", type=whole, metavar="N", help="CPU threads (default: all that torch takes)")
    bench.add_argument("--cpu-time", action="store_true", help="count processor time, not the clock's: with --threads 1, what others do on the machine hardly shows")  # fmt: skip
    bench.add_argument("--machine", action="store_true", help="only the machine: matrix products and memory")
    bench.add_argument("--again", action="store_true", help="measure anew what is known of the machine from before")
    bench.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps")
    json_option(bench)
