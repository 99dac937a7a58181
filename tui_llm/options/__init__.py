"""What can be said after each command. One file for commands that belong together; imports nothing slow.

`add(command)` of a part adds its commands: `command(name, help, module)` makes a parser whose command is the function of that
name in `commands/MODULE.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

PARTS: tuple[str, ...] = (
    "tokens",
    "inside",
    "models",
    "serve",
    "runs",
    "learn",
    "draws",
    "tree",
    "tour",
    "bench",
    "completion",
)  # in the order that --help lists them

AddCommand = Callable[[str, str, str], argparse.ArgumentParser]
