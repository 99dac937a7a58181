"""What can be looked up in a run: its batch, its samples."""

from __future__ import annotations

from tui_llm.options import AddCommand
from tui_llm.options.shared import json_option


def add(command: AddCommand) -> None:
    batch = command("batch", "show the batch that a run learns from next, with the loss on each token", "looking")
    batch.add_argument("run", metavar="RUN")
    batch.add_argument("--now", action="store_true", help="ask the worker for its next step's, and wait for it")
    samples = command("samples", "list the texts that a run's model wrote while it learned", "looking")
    samples.add_argument("run", metavar="RUN")
    samples.add_argument("--last", metavar="N", help="the newest N only")
    for sub in (batch, samples):
        json_option(sub)
