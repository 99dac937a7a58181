"""The tests. `HANG` is the one time limit here: no test is about time, and a busy machine must not fail one."""

import tomllib
from pathlib import Path

_options = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]

HANG = float(_options["timeout"])
"""Seconds after which a wait is taken for a hang. pytest-timeout ends every test then; waits in other threads and processes,
which it can't end, have it as their limit."""
