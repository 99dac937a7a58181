"""Compare training throughput, peak memory and loss with nanoGPT's model and recipe, alternating in one process.

    git clone https://github.com/karpathy/nanoGPT
    python scripts/bench_training.py --nanogpt nanoGPT --memory mid-50k --losses 500

On a machine with other load, the figures are noisy: increase --rounds, or measure CPU time on one thread with --threads
1 --cpu-time.
"""

from __future__ import annotations

import argparse
import os
import sys

from tui_llm.training.plan.processes import ALLOCATOR

SHAPES = ("baby", "nano", "mid-4k", "mid-50k")
THEIRS = ("nanogpt", "nanogpt-bf16")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", required=True, metavar="PATH", help="a clone of nanoGPT, or its model.py")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--sides", nargs="*", choices=THEIRS, default=THEIRS,
                        help="of nanoGPT; without AVX-512's bf16, bf16 is emulated and takes minutes a step")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="of each side in a round")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds instead of the clock's")
    parser.add_argument("--compile", action="store_true", help="torch.compile for nanoGPT in bf16, its best setting")
    parser.add_argument("--apart", action="store_true",
                        help="each side in a process of its own, nanoGPT without the allocator's settings of our worker")  # fmt: skip
    parser.add_argument("--memory", choices=SHAPES, help="measure peak memory of this shape too")
    parser.add_argument("--losses", type=int, default=0, metavar="STEPS", help="compare the loss over so many steps")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.apart and options.cpu_time:
        parser.error("--cpu-time counts one process, and --apart starts several; leave one out")
    # the allocator reads them at process start: start again
    if any(os.environ.get(name) is None for name in ALLOCATOR):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**ALLOCATOR, **os.environ})
    from tui_llm.common.errors import UserError
    from tui_llm.training.worker import versus

    try:
        versus.main(options)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
