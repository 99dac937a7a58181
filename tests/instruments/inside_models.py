"""The models that the tests of lens grid, block and backward pass compare with transformers' GPT-2: nano, and two random
ones of other shapes, over bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.byte_models import save_byte_model
from tui_llm.common import paths
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.llm.model.shape import GPTConfig

TEXT = "Once upon a time, there was a"
SHAPES = {
    "three layers": GPTConfig(vocabulary=257, context=40, layers=3, heads=4, width=24),
    # Its padding rows have the largest logits, where they are not left out.
    "untied": GPTConfig(vocabulary=264, context=40, layers=2, heads=1, width=16, inner=20, tied=False),
}
NAMES = ("nano", *SHAPES)


@dataclass(frozen=True)
class Models:
    """One model twice: in our engine, and as transformers' GPT-2 in float64."""

    engine: PipelineEngine
    theirs: Any

    def ids(self, prompt: str = TEXT) -> list[int]:
        return self.engine.ids(Request(prompt=prompt))

    def run(self, ids: list[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """Each module's first input and first output in one forward pass, without the batch dimension."""
        kept: dict[str, tuple[Tensor, Tensor]] = {}

        def keep(name: str) -> Any:
            def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                made = output[0] if isinstance(output, tuple) else output
                if args and isinstance(args[0], Tensor) and isinstance(made, Tensor):
                    kept[name] = args[0].detach()[0], made.detach()[0]

            return hook

        handles = [
            module.register_forward_hook(keep(name)) for name, module in self.theirs.transformer.named_modules() if name
        ]
        with torch.no_grad():
            self.theirs(torch.tensor([ids]))
        for handle in handles:
            handle.remove()
        return kept


def models(name: str, folder: Path) -> Models:
    from transformers import GPT2LMHeadModel

    path = paths.shipped_models_dir() / "nano" if name == "nano" else folder / name
    if name != "nano":
        save_byte_model(path, SHAPES[name], seed=5, padding=10.0)
    engine = PipelineEngine("cpu")
    engine.open(str(path))
    theirs = GPT2LMHeadModel.from_pretrained(path, attn_implementation="eager", dtype=torch.float64).eval()
    return Models(engine, theirs)
