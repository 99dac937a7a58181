"""Inject a fault at the k-th disk operation of every command that writes, and check what is left.

    python scripts/io_faults.py --seed 7              # a sample: 2 attempts of each scenario
    python scripts/io_faults.py --all                 # every k of every scenario, in every way
    python scripts/io_faults.py --distinct            # one of each call on each kind of path: an eighth of the time
    python scripts/io_faults.py --all --only resume   # of one scenario

tests/faults.py states the invariants. Prints a line for each scenario, and one for each violation.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fault_scenarios import SCENARIOS
from tests.faults import HOW, Trial

SAMPLE = 34


def kind(call: str) -> str:
    """Returns a call without the parts that vary: the step of a checkpoint and the suffix of a temporary folder."""
    return re.sub(r"\.tui-llm-\w+", ".tui-llm-", re.sub(r"checkpoint-\d+", "checkpoint-", call))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--count", type=int, default=SAMPLE, help="attempts of the sample")
    parser.add_argument("--all", action="store_true", help="every k")
    parser.add_argument(
        "--distinct", action="store_true", help="one k of those that do the same to the same kind of path"
    )
    parser.add_argument("--only", choices=SCENARIOS, nargs="+", default=list(SCENARIOS), help="these scenarios")
    parser.add_argument("--how", choices=HOW, nargs="+", default=list(HOW), help="these faults")
    parser.add_argument("--json", action="store_true", help="the counts as JSON, at the end")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    counts: dict[str, dict[str, int]] = {}
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only:
            trial = Trial(SCENARIOS[name], Path(scratch) / name.replace(" ", "-"))
            # the last of each kind: most files exist by then
            kinds = {kind(call): k for k, call in enumerate(trial.calls, 1)}
            numbers = sorted(kinds.values()) if options.distinct else range(1, len(trial.calls) + 1)
            every = [(k, how) for k in numbers for how in options.how]
            share = -(-options.count // len(options.only))
            chosen = every if options.all or options.distinct else sorted(draw.sample(every, min(share, len(every))))
            failed = 0
            for done, (k, how) in enumerate(chosen):
                if done and done % 50 == 0:
                    print(f"  {name}: {done} of {len(chosen)}", file=sys.stderr, flush=True)
                found = trial.attempt(k, how)
                failed += bool(found)
                for line in found:
                    print("  ✗", line, flush=True)
            wrong += failed
            counts[name] = {"calls": len(trial.calls), "attempts": len(chosen), "failed": failed}
            print(f"{name}: {len(trial.calls)} calls, {len(chosen)} attempts, {failed} failed", flush=True)
    if options.json:
        print(json.dumps(counts))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
