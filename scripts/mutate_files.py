"""Read mutated files with the real commands, each in its own process; the mutations follow from a seed.

A case must end with a correct answer or one line of error, within 10 s of CPU and 1 GB more than for the original
files, and execute nothing from them.

    python scripts/mutate_files.py --seed 1 --cases 5000                    # all kinds
    python scripts/mutate_files.py --seed 1 --kind models --case 17 --keep  # repeat one case and keep its files

The last line is JSON: cases, outcomes by kind, the largest CPU time and memory, and failures. The exit status is 1 if
there is a failure. Linux only: it uses fork and /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="begin with this case, so that several can share the work")
    parser.add_argument("--kind", choices=("models", "vocabularies", "corpora", "runs", "causes"))
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--cpu", type=int, default=10, help="seconds of CPU that a case may take (default 10)")
    parser.add_argument("--keep", action="store_true", help="leave the files of the last case")
    parser.add_argument("--log", type=Path, help="a line of JSON for each case")
    options = parser.parse_args()
    from tests.mutations import forked  # first: the package `tests` clears these variables
    from tests.mutations.session import Session

    forked.CPU = options.cpu
    for name, value in (("OMP_NUM_THREADS", "1"), ("TOKENIZERS_PARALLELISM", "false"), ("HF_HUB_OFFLINE", "1")):
        os.environ[name] = value
    work = _folder(options.seed)
    os.environ["TUI_LLM_HOME"] = str(work / "home")
    session = Session(work, options.seed, options.log)
    try:
        if options.case is not None:
            session.one(options.kind or "models", options.case)
        else:
            session.all(options.cases, [options.kind] if options.kind else None, options.first)
    finally:
        session.close(keep=options.keep)
    print(json.dumps(session.report(), ensure_ascii=False))
    return 1 if session.faults else 0


def _folder(seed: int) -> Path:
    """A new folder. Its name, which the runs in it contain, follows from the seed, unless another process has that one."""
    work = Path(tempfile.gettempdir()) / f"mutated-{seed:08}"
    try:
        work.mkdir(mode=0o700)
    except FileExistsError:
        return Path(tempfile.mkdtemp(prefix="mutated-"))
    return work


if __name__ == "__main__":
    raise SystemExit(main())
