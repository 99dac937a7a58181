"""The entry point of `python -m tui_llm.training.worker RUN` (see process.py)."""

from __future__ import annotations

import os
import sys

from tui_llm.training.worker.process import main

if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status and "LOCAL_RANK" in os.environ:
        os._exit(status)  # a regular exit could wait forever for a dead peer while it closes connections
    raise SystemExit(status)
