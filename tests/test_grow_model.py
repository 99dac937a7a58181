"""scripts/grow_model.py: the grown model is the trained one until it is trained on, as transformers reads both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "models" / "nano"
SCRIPT = ROOT / "scripts" / "grow_model.py"


def grow(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("options", "layers", "context"), [((), 8, 512), (("--layers", "5", "--context", "300"), 5, 300)]
)
def test_the_logits_stay(tmp_path: Path, options: tuple[str, ...], layers: int, context: int) -> None:
    made = grow(NANO, tmp_path / "grown", *options)
    assert made.returncode == 0, made.stderr
    ids = torch.arange(0, 4000, 40)[None]
    before = GPT2LMHeadModel.from_pretrained(NANO, dtype=torch.float32)
    after = GPT2LMHeadModel.from_pretrained(tmp_path / "grown", dtype=torch.float32)
    assert (after.config.n_layer, after.config.n_positions) == (layers, context)
    with torch.no_grad():
        torch.testing.assert_close(after(ids).logits, before(ids).logits)
        assert torch.isfinite(after(torch.zeros(1, context, dtype=torch.long)).logits).all()


def test_what_does_not_grow_is_said(tmp_path: Path) -> None:
    assert grow(NANO, tmp_path / "less", "--layers", "3").stderr == "a model of 4 layers does not grow to 3\n"
    assert grow(NANO, tmp_path / "less", "--context", "9").stderr == "a context of 256 tokens does not grow to 9\n"
    assert not (tmp_path / "less").exists()
    assert "exists" in grow(NANO, tmp_path).stderr
