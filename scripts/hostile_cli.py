"""Try every option of every command with hostile values (numbers, texts, paths), and print what goes wrong.

    python scripts/hostile_cli.py [--seed S] [--each N] [--only WORDS]

Without --each, all values are tried, which takes some minutes. The exit status is 1 if a call did not end with status
0, or with 2 and one line.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        from tests import hostile  # first: the package `tests` clears these variables

        os.environ.update(TUI_LLM_HOME=f"{scratch}/home", HF_HUB_OFFLINE="1")

        hostile.furnish(Path(scratch))
        before, count, wrong, began = hostile.state(Path(scratch)), 0, 0, time.monotonic()
        with hostile.shortened():
            for case in hostile.cases(options.seed, options.each):
                if not case.command.startswith(options.only):
                    continue
                count += 1
                said = hostile.problem(case.arguments)
                if (after := hostile.state(Path(scratch))) != before:
                    said, before = f"{said or ''} wrote to {set(after.items()) ^ set(before.items())}", after
                if said:
                    wrong += 1
                    print(f"{ascii(str(case))[:200]}\n  {[a[:80] for a in case.arguments]!a}\n  {said}", flush=True)
        print(f"{count} calls, {wrong} wrong, {time.monotonic() - began:.0f} s")
        os.chdir("/")
    return min(wrong, 1)


if __name__ == "__main__":
    raise SystemExit(main())
