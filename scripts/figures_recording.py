"""What recording the statistics of matrices costs: seconds of training with and without it, in turn in one process.

    python scripts/figures_recording.py
    python scripts/figures_recording.py --presets small --rounds 20 --threads 1 --device cuda

Each round trains as many steps as lie between two lines of matrices.jsonl, once with its line and once without, on random
bytes. Prints the median of the rounds' ratios and the middle half of them; the goal is at most 1.01.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tui_llm.llm.data import corpus
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan.cost import shape
from tui_llm.training.run import jsonl, matrix_statistics
from tui_llm.training.run.settings import PRESETS, from_fields
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.matrix_recorder import MatrixRecorder


def trainer(preset: str, device: torch.device, folder: Path) -> Trainer:
    settings = from_fields({"tokenizer": "byte", "steps": 10**6, "eval_every": 10**6}, PRESETS[preset])
    text = folder / "text.txt"
    text.write_bytes(bytes(torch.randint(97, 123, (400_000,), generator=torch.Generator().manual_seed(1)).tolist()))
    data = corpus.load([text], byte_level(), settings.validation_fraction, block_size=settings.block_size)
    torch.manual_seed(1)
    return Trainer(GPT(shape(settings, 257)), data, settings, device)


def ratios(
    ours: Trainer, rounds: int, every: int, path: Path, clock: Callable[[], float] = time.perf_counter
) -> list[tuple[float, float]]:
    """Seconds without and with a line, for each round."""
    steps, recorder, found = ours.steps(), MatrixRecorder(ours.model, every), []
    next(steps)  # step 1, which is evaluated

    def train(recorded: bool) -> float:
        began = clock()
        for _ in range(every):
            metric = next(steps)
            if recorded and (taken := recorder.take()) is not None:
                with path.open("ab", buffering=0) as file:
                    jsonl.append(file, matrix_statistics.line(taken))
            # a line in the middle: `due` is asked for the step that follows
            recorder.wanted = recorded and metric.step % every == every // 2  # type: ignore[attr-defined]
        return clock() - began

    recorder.wanted = False  # type: ignore[attr-defined]
    recorder.due = lambda step: recorder.wanted and step != recorder._step  # type: ignore[attr-defined, method-assign]
    ours.matrices = recorder
    for number in range(rounds + 1):
        order = (False, True) if number % 2 else (True, False)
        taken = {recorded: train(recorded) for recorded in order}
        if number:  # the first one warms up
            found.append((taken[False], taken[True]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", default=["toy", "small"], choices=[*PRESETS])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--every", type=int, default=matrix_statistics.EVERY, help="steps for each line")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time: on one thread, other load hardly changes it"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUI_LLM_HOME"] = folder
        for preset in options.presets:
            ours = trainer(preset, torch.device(options.device), Path(folder))
            clock = time.process_time if options.cpu_time else time.perf_counter
            pairs = ratios(ours, options.rounds, options.every, Path(folder) / "matrices.jsonl", clock)
            found = sorted(b / a for a, b in pairs)
            plain = statistics.median(a for a, _ in pairs) / options.every
            quarter = len(found) // 4
            rows.append({"preset": preset, "parameters": sum(p.numel() for p in ours.model.parameters()),
                         "milliseconds_per_step": 1000 * plain, "ratio": statistics.median(found),
                         "from": found[quarter], "to": found[-1 - quarter]})  # fmt: skip
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['preset']:8} {row['parameters']:>12,} parameters  {row['milliseconds_per_step']:8.2f} ms a step  "
              f"with ÷ without {row['ratio']:.4f} ({row['from']:.4f} to {row['to']:.4f})")  # fmt: skip


if __name__ == "__main__":
    main()
