"""scripts/grow_model.py: the grown model is the trained one until it is trained on, as transformers reads both."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "models" / "nano"
SCRIPT = ROOT / "scripts" / "grow_model.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("grow_model", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def grow(script: Any, *arguments: str | Path) -> None:
    script.main([str(one) for one in arguments])


@pytest.mark.parametrize(
    ("options", "layers", "context"), [((), 8, 512), (("--layers", "5", "--context", "300"), 5, 300)]
)
def test_the_logits_stay(script: Any, tmp_path: Path, options: tuple[str, ...], layers: int, context: int) -> None:
    grow(script, NANO, tmp_path / "grown", *options)
    ids = torch.arange(0, 4000, 40)[None]
    before = GPT2LMHeadModel.from_pretrained(NANO, dtype=torch.float32)
    after = GPT2LMHeadModel.from_pretrained(tmp_path / "grown", dtype=torch.float32)
    assert (after.config.n_layer, after.config.n_positions) == (layers, context)
    with torch.no_grad():
        torch.testing.assert_close(after(ids).logits, before(ids).logits)
        assert torch.isfinite(after(torch.zeros(1, context, dtype=torch.long)).logits).all()


def test_what_does_not_grow_is_said(script: Any, tmp_path: Path) -> None:
    for option, said in (
        (("--layers", "3"), "a model of 4 layers does not grow to 3"),
        (("--context", "9"), "a context of 256 tokens does not grow to 9"),
    ):
        with pytest.raises(SystemExit, match=f"^{said}$"):
            grow(script, NANO, tmp_path / "less", *option)
    assert not (tmp_path / "less").exists()
    with pytest.raises(SystemExit, match="exists"):
        grow(script, NANO, tmp_path)


def test_copies_are_spread_evenly(script: Any) -> None:
    assert script.layer_sources(4, 6) == [(0, False), (0, True), (1, False), (1, True), (2, False), (3, False)]
