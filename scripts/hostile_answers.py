"""Answer the dialogs of the app that ask for a text with every hostile value, and check that none ends in an internal error.

    python scripts/hostile_answers.py [--each N] [PYTEST_ARGUMENT ...]

Without --each, all values are tried: hundreds of dialogs in a test, which therefore has no time limit. The exit status is that of pytest, which runs tests/tui/test_hostile_answers.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=sys.maxsize)
    options, arguments = parser.parse_known_args()
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "--timeout", "0", "tests/tui/test_hostile_answers.py", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "TUI_LLM_EACH": str(options.each)},
    ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
