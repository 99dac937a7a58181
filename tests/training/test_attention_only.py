"""Attention-only runs: the MLPs stay exactly zero, transformers computes the same, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.run_helpers import contents, lines, losses, make, words, work
from tui_llm.common.errors import UserError
from tui_llm.llm.data import repeats
from tui_llm.llm.model import attention_only, checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.training.plan import cost
from tui_llm.training.run import head_readings
from tui_llm.training.run.settings import PRESETS, from_fields

FIELDS = {"attention_only": "on", "tokenizer": "char", "layers": 2, "sample_prompt": "abcabc"}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "repeats.txt"
    path.write_text("".join(repeats.text(1, 20_000)))
    return path


@pytest.mark.parametrize("optimizer", ("adamw", "muon"))
def test_transformers_computes_the_same_and_a_resumed_run_too(optimizer: str, text: Path) -> None:
    run = make("run", text, optimizer=optimizer, **FIELDS)
    assert work(run) == 0, run.log_path.read_text()
    if optimizer == "muon":
        broken = make("broken", text, optimizer=optimizer, **FIELDS)
        assert work(broken, ("half a line", 12)) == -9
        assert work(broken) == 0, broken.log_path.read_text()
        assert losses(broken) == losses(run)
        assert contents(broken.checkpoints()[-1][1]) == contents(run.checkpoints()[-1][1])
        assert lines(broken.heads_path) == lines(run.heads_path)
    assert [one.step for one in head_readings.evaluations(run)] == [0, 1, 10, 20, 30]

    folder = run.checkpoints()[-1][1]
    config = json.loads((folder / "config.json").read_text())
    assert config["n_inner"] == 1
    model = checkpoint.load(folder)
    for block in model.blocks:
        assert all(not parameter.any() for parameter in block.mlp.parameters())  # type: ignore[union-attr]
        assert block.attention.out.weight.any()  # type: ignore[union-attr]
    ids = torch.randint(26, (2, 16))
    theirs = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    with torch.inference_mode():
        logits = model(ids)
        assert torch.allclose(logits, theirs(ids).logits, atol=1e-5)
        # The same stream with attention alone, as the literature defines such a model.
        x = model.tokens(ids) + model.positions(torch.arange(16))
        for block in model.blocks:
            x = x + block.attention(block.norm1(x))  # type: ignore[operator,union-attr]
        assert torch.allclose(logits, model.head(model.norm(x)), atol=1e-5)


def test_a_step_equals_autograd_without_mlps() -> None:
    """Dropped gradients are 0 also where autograd has others, so the norm is that of attention and embeddings alone."""
    settings = from_fields({"layers": 2, "heads": 2, "width": 16, "block_size": 16, "attention_only": "on"})
    torch.manual_seed(1)
    model = GPT(cost.shape(settings, 27))
    attention_only.silence(model)
    ids = torch.randint(27, (4, 17))
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    mlps = [parameter for block in model.blocks for parameter in block.mlp.parameters()]  # type: ignore[union-attr]
    assert [bool(parameter.grad.any()) for parameter in mlps] == [False, False, False, True] * 2
    attention_only.drop_gradients(model)
    assert not any(parameter.grad.any() for parameter in mlps)


def test_the_preset_is_attention_only_on_letters() -> None:
    preset = PRESETS["induction"]
    assert preset.attention_only == "on" and preset.layers == 2
    assert cost.shape(preset, 27).inner == 1 and cost.shape(PRESETS["toy"], 257).inner == 0
    assert set(preset.sample_prompt) <= set(repeats.LETTERS)
    assert preset.block_size >= 2 * repeats.LONGEST + 1
    with pytest.raises(UserError, match="attention only is for random weights"):
        from_fields({"attention_only": "on", "from_model": "nano"})


def test_recording_heads_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses and weights of a run are those of a run without the recorder."""
    from tui_llm.training.run.run import Run
    from tui_llm.training.worker import evaluations, job, process

    # What a worker sets for its whole process must not stay set in the tests'.
    monkeypatch.setattr(process.signal, "signal", lambda *_: None)
    monkeypatch.setattr(process.torch, "set_flush_denormal", lambda _: True)
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    made = []
    for name in ("with", "without"):
        run: Run = make(name, path, dropout=0.1, steps=12, eval_every=3)
        if name == "without":
            monkeypatch.setattr(evaluations, "RECORDERS", tuple(one for one in evaluations.RECORDERS if one is not evaluations.score_heads))  # fmt: skip
            monkeypatch.setattr(job.head_readings, "begin", lambda *_: None)
        assert process.main([str(run.path)]) == 0
        made.append(run)
    assert losses(made[0]) == losses(made[1])
    assert contents(made[0].checkpoints()[-1][1]) == contents(made[1].checkpoints()[-1][1])
    assert len(head_readings.evaluations(made[0])) == 6 and not head_readings.evaluations(made[1])
