"""A sample of mutated files read by the real commands: each gives a correct answer or one line of error.

`scripts/mutate_files.py` runs thousands, and holds them to 10 s of CPU. Beside other programs the same work takes several
times as much, so that here only a case that goes on and on is a fault.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc")
def test_a_sample_of_mutated_files() -> None:
    words = [sys.executable, str(ROOT / "scripts" / "mutate_files.py"), "--seed", "13", "--cases", "120"]
    words += ["--cpu", "60"]
    made = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr[-3000:] + made.stdout[-3000:]
    assert json.loads(made.stdout.splitlines()[-1])["cases"] == 120
