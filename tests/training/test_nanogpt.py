"""The comparison with nanoGPT, using a fake with its interface, so that no code is downloaded for a test."""

from __future__ import annotations

import importlib
import math
import runpy
import sys
from pathlib import Path

import pytest

from tui_llm.common.errors import UserError
from tui_llm.training.worker import versus

STAND_IN = """
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional as F

@dataclass
class GPTConfig:
    block_size: int; vocab_size: int; n_layer: int; n_head: int; n_embd: int; dropout: float; bias: bool

class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c_attn, self.c_proj, self.h = nn.Linear(c.n_embd, 3 * c.n_embd), nn.Linear(c.n_embd, c.n_embd), c.n_head
    def forward(self, x):
        q, k, v = (p.unflatten(2, (self.h, -1)).transpose(1, 2) for p in self.c_attn(x).chunk(3, 2))
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(c.n_embd, 4 * c.n_embd), nn.Linear(4 * c.n_embd, c.n_embd)
    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x)))

class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.mlp = nn.LayerNorm(c.n_embd), Attention(c), nn.LayerNorm(c.n_embd), MLP(c)
    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))

class GPT(nn.Module):
    def __init__(self, c):
        super().__init__()
        print("number of parameters")
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(c.vocab_size, c.n_embd), wpe=nn.Embedding(c.block_size, c.n_embd),
            h=nn.ModuleList(Block(c) for _ in range(c.n_layer)), ln_f=nn.LayerNorm(c.n_embd)))
    def forward(self, x, y):
        t = self.transformer
        h = t.wte(x) + t.wpe.weight[: x.size(1)]
        for block in t.h:
            h = block(h)
        logits = t.ln_f(h) @ t.wte.weight.t()
        return logits, F.cross_entropy(logits.flatten(0, 1), y.flatten())
    def configure_optimizers(self, decay, lr, betas, device):
        groups = [dict(params=[p for p in self.parameters() if p.dim() > 1], weight_decay=decay),
                  dict(params=[p for p in self.parameters() if p.dim() < 2], weight_decay=0.0)]
        return torch.optim.AdamW(groups, lr=lr, betas=betas)
"""
TINY = versus.Shape(2, 2, 16, 8, 4, 65)


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model.py").write_text(STAND_IN)
    monkeypatch.setitem(versus.SHAPES, "baby", TINY)
    return tmp_path


def test_every_side_is_measured_in_turn(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = versus.compare("baby", stand_in, count=3, each=1)
    assert found["tokens_per_second"].keys() == set(versus.SIDES) and all(found["tokens_per_second"].values())
    assert set(found["ratio"]) == {"nanogpt", "nanogpt-bf16"}
    assert "ours ÷ nanoGPT's recipe" in versus.table(found) and capsys.readouterr().out == ""


def test_sides_can_be_left_out(stand_in: Path) -> None:
    alone = versus.compare("baby", stand_in, count=1, each=1, sides=["ours"])
    assert list(alone["tokens_per_second"]) == ["ours"] and alone["ratio"] == {}
    assert "nanoGPT" not in versus.table(alone)
    two = versus.compare("baby", stand_in, count=1, each=1, sides=["ours", "nanogpt"])
    assert list(two["ratio"]) == ["nanogpt"] and "bf16" not in versus.table(two)


def test_rounds_take_turns_and_ratios_are_within_a_round() -> None:
    now, order = 0.0, []

    def step(name: str, seconds: float) -> float:
        nonlocal now
        order.append(name)
        now += seconds
        return 0.0

    steps = {"a": lambda: step("a", 1.0), "b": lambda: step("b", 3.0)}
    assert list(versus.rounds(steps, 2, 2, lambda: now)) == [{"a": 1.0, "b": 3.0}] * 2
    assert "".join(order) == "aabb" + "aabb" + "bbaa"


def test_at_equal_steps_the_losses_are_equal(stand_in: Path) -> None:
    curve = versus.losses(stand_in, 30)
    assert curve["ours"] == pytest.approx(curve["nanogpt"], rel=5e-3)
    assert curve["ours"][0] == pytest.approx(math.log(65), rel=0.03) and curve["ours"][-1] < curve["ours"][0]


def test_text_fits_the_vocabulary() -> None:
    for vocabulary in (65, 4096):
        ids = versus.text_ids(vocabulary, 5000)
        assert len(ids) == 5000 and ids.max() < vocabulary and len(set(ids.tolist())) > 30


def test_a_folder_that_is_not_nanogpt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clone of github\.com/karpathy/nanoGPT"):
        versus.load(tmp_path / "nowhere")


def test_a_side_apart_is_started_as_its_users_start_it(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    with (stand_in / "model.py").open("a") as file:
        file.write(
            'import os, pathlib\npathlib.Path(__file__).with_name("seen").write_text(str("THP_MEM_ALLOC_ENABLE" in os.environ))'
        )
    side = versus.SideProcess("baby", "nanogpt", stand_in, compiled=False)
    try:
        first = side()
        assert math.isfinite(first) and side() < first  # its loss decreases
    finally:
        side.close()
    assert (stand_in / "seen").read_text() == "False" and side.process.returncode == 0


def test_a_side_apart_that_fails_is_named(tmp_path: Path) -> None:
    side = versus.SideProcess("baby", "nanogpt-bf16", tmp_path / "nowhere", compiled=False)
    with pytest.raises(UserError, match="nanogpt-bf16 could not be measured"):
        side()
    side.close()


NANOCHAT = """
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional as F

@dataclass
class GPTConfig:
    sequence_len: int; vocab_size: int; n_layer: int; n_head: int; n_kv_head: int; n_embd: int; window_pattern: str

class GPT(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wte, self.lm_head = nn.Embedding(c.vocab_size, c.n_embd), nn.Linear(c.n_embd, c.vocab_size, bias=False)
    def init_weights(self):
        print("padding")
    def setup_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)
    def forward(self, x, y):
        return F.cross_entropy(self.lm_head(self.wte(x)).flatten(0, 1), y.flatten())
"""


def test_nanochats_step_runs_and_a_folder_without_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "bench_nanochat.py"))
    with pytest.raises(UserError, match=r"clone of github\.com/karpathy/nanochat"):
        script["nanochat"](TINY, tmp_path, compiled=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "nanochat").mkdir()
    (tmp_path / "nanochat" / "__init__.py").touch()
    code = tmp_path / "nanochat" / "gpt.py"
    code.write_text("import a_package_that_is_not_there\n")
    with pytest.raises(UserError, match=r"can't be imported: .*a_package_that_is_not_there"):
        script["nanochat"](TINY, tmp_path, compiled=False)
    code.write_text(NANOCHAT)
    importlib.invalidate_caches()
    step, _ = script["nanochat"](TINY, tmp_path, compiled=False)
    first = step()
    assert first == pytest.approx(math.log(65), rel=0.2) and min(step() for _ in range(30)) < first
    assert capsys.readouterr().out == ""
    for name in ("nanochat", "nanochat.gpt"):
        monkeypatch.delitem(sys.modules, name)
