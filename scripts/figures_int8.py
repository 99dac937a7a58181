"""Measure how far nano's int8 predictions are from its fp32 ones, on the held-out paragraphs that ship with the package.

    python scripts/figures_int8.py [--kernel NAME] [--json]

Top-1 agreement is the share of positions with the same likeliest token; KL(fp32 ‖ int8) is in nats, a mean over positions.
"""

from __future__ import annotations

import argparse
import json

import torch

from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.instruments.guess.passages import passages
from tui_llm.llm.hub import lookup
from tui_llm.llm.model import checkpoint, fast_decode, native

LENGTH = 256  # tokens of a row: nano's context


def held_out() -> torch.Tensor:
    """Returns rows of `LENGTH` ids."""
    engine = PipelineEngine("cpu")
    engine.open("nano")
    ids = engine.ids(Request(prompt="\n".join(passage.text for passage in passages())))
    return torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)


@torch.inference_mode()
def measure(kernel: str = "") -> dict[str, float | str | int]:
    rows, folder = held_out(), lookup.find("nano").folder
    exact = checkpoint.load(folder)(rows).flatten(0, 1).log_softmax(-1)
    model = checkpoint.load(folder)
    name = fast_decode.prepare(model, "int8", kernel=kernel).name
    made = model(rows).flatten(0, 1).log_softmax(-1)
    return {
        "kernel": name,
        "positions": len(made),
        "top-1": float((made.argmax(-1) == exact.argmax(-1)).double().mean()),
        "KL": float((exact.exp() * (exact - made)).sum(-1).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="", help="the default is the one that a large model gets")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.kernel or ("torch" if native.library() is None else "native"))
    if options.json:
        print(json.dumps(found))
        return
    print(f"nano, int8, {found['kernel']} kernel, {found['positions']:,} positions: "
          f"top-1 {found['top-1']:.4f}, KL {found['KL']:.2e}")  # fmt: skip


if __name__ == "__main__":
    main()
