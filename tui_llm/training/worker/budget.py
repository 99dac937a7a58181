"""The subprocess of plan/budget.py: `python -m tui_llm.training.worker.budget`.

It reads a JSON request from stdin and writes JSON lines to stdout: what it found in the text, then the speed of each shape, or a
line that names the problem. The caller ends it once it knows enough.
"""

from __future__ import annotations

import itertools
import json
import signal
import statistics
import sys
from typing import Any

import torch

from tui_llm.llm.data import corpora, texts
from tui_llm.llm.data.formats import TextFormat
from tui_llm.llm.hub import hub
from tui_llm.llm.model import device
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.training.run.settings import from_fields
from tui_llm.training.worker.problem_line import problem_line
from tui_llm.training.worker.step_time import measure

SAMPLE = 1 << 18  # characters of the text that are tokenized
EACH = 4.0  # seconds for one shape, at most
BLOCKS = 4  # of a file's text that are read
PLACES = 4  # files that the sample is from


def text_facts(places: list[str], how: TextFormat, tokenizers: list[str]) -> dict[str, Any]:
    """The bytes of the text, and the bytes per token of each vocabulary in a sample. Raises `UserError`.

    A file may be packed, or have other fields than the text: its size on disk is scaled by what the sample's part was on disk.
    """
    files = corpora.files(places)
    apart, share = max(1, len(files) // PLACES), SAMPLE // min(PLACES, len(files))
    on_disk = decoded = 0

    def saw(data: bytes) -> None:
        nonlocal on_disk
        on_disk += len(data)

    sample = ""
    for file in files[::apart][:PLACES]:
        text = "".join(itertools.islice(texts.blocks(file, saw, how), BLOCKS))
        decoded += len(text.encode()) - len(END_OF_TEXT) * text.count(END_OF_TEXT)
        sample += text[:share]
    size = round(sum(map(texts.size_on_disk, files)) * decoded / max(1, on_disk))
    each = {}
    for name in tokenizers:
        ids = hub.training_tokenizer(name).encode(sample)
        each[name] = len(sample.encode()) / max(1, len(ids))
    return {"bytes": size, "bytes_per_token": each}


def main() -> int:
    """Reads the request from stdin and prints the results. Returns the exit status."""

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value), flush=True)

    try:
        asked = json.load(sys.stdin)
        if hasattr(signal, "alarm"):
            signal.alarm(int(asked["seconds"]) + 600)  # exit if the parent has ended
        torch.set_flush_denormal(True)
        place = device.choose(asked["device"])
        if asked["tokenizers"]:
            say({"text": text_facts(asked["corpus"], TextFormat(*asked["format"]), asked["tokenizers"])})
        for at, (settings, shape) in enumerate(asked["shapes"]):
            steps = list(measure(from_fields(settings), GPTConfig(**shape), place, EACH))
            rates = [step["tokens"] / step["seconds"] for step in steps]
            say({"shape": at, "tokens_per_second": statistics.median(rates), "device": str(place)})
        return 0
    except BrokenPipeError:
        return 1
    except Exception as error:  # the parent reports it
        say({"problem": problem_line(error)})
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
