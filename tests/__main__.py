"""`python -m tests`: every check of this project, in turn; stops at the first that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

CHECKS = [
    [BIN / "ruff", "check", "."],
    [BIN / "ruff", "format", "--check", "."],
    [BIN / "mypy"],
    [BIN / "lint-imports"],
    [sys.executable, "-m", "pytest", "-n", "2", "--durations=10", *sys.argv[1:]],
]

for check in CHECKS:
    print("$", " ".join(str(Path(word).name if i == 0 else word) for i, word in enumerate(check)), flush=True)
    code = subprocess.run(check, cwd=HERE).returncode
    if code:
        sys.exit(code)
