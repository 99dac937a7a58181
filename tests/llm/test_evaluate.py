"""Held-out loss against transformers, and bits per byte in closed form."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from tests.byte_models import save_byte_model
from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.hub.open_model import open_gpt
from tui_llm.llm.learn.evaluate import evaluate
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig

NANO = paths.shipped_models_dir() / "nano"


def model(context: int = 16) -> GPT:
    torch.manual_seed(0)
    made = GPT(GPTConfig(vocabulary=30, context=context, layers=1, heads=2, width=16)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def test_one_window_is_plain_cross_entropy() -> None:
    ids = torch.randint(0, 30, (17,)).tolist()
    gpt = model()
    found = evaluate(gpt, ids, lambda id: b"ab")
    with torch.no_grad():
        wanted = float(F.cross_entropy(gpt(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:])))
    assert found.tokens == 16
    assert found.loss == pytest.approx(wanted, abs=1e-5)
    assert found.bits_per_byte == pytest.approx(wanted / math.log(2) / 2, abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(wanted), rel=1e-5)


@given(st.integers(2, 120), st.integers(1, 16))
@settings(max_examples=25)
def test_every_token_once_with_half_a_context_before_it(length: int, context: int) -> None:
    """Compares with each token's loss in a window of its own."""
    gpt = model(context)
    ids = torch.randint(0, 30, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    found = evaluate(gpt, ids, lambda id: b"a")
    size = min(context, length - 1)
    stride = max(1, size // 2)
    total = 0.0
    for at in range(1, length):
        start = 0 if at <= size else math.ceil((at - size) / stride) * stride
        assert at - start >= min(at, size - stride) or start == 0
        with torch.no_grad():
            total += float(F.cross_entropy(gpt(torch.tensor([ids[start:at]]))[0, -1:], torch.tensor(ids[at : at + 1])))
    assert found.tokens == length - 1
    assert found.loss == pytest.approx(total / (length - 1), abs=1e-4)


def test_too_short() -> None:
    with pytest.raises(UserError, match="too short"):
        evaluate(model(), [1], lambda id: b"a")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "story.txt"
    text.write_text("Once upon a time, there was a little girl.\n<|endoftext|>\nShe had a dog.\n")
    assert main(["evaluate", str(text), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["model"] == "nano"
    assert made["bytes"] == len("Once upon a time, there was a little girl.She had a dog.")
    assert made["bits_per_byte"] == pytest.approx(made["loss"] * made["tokens"] / math.log(2) / made["bytes"])
    # In transformers: `<|endoftext|>` in front and after each document, and one window.
    tokenizer = GPT2Tokenizer(str(NANO / "vocab.json"), str(NANO / "merges.txt"))
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    ids = [end]
    for document in ("Once upon a time, there was a little girl.", "She had a dog."):
        ids += [*tokenizer(document).input_ids, end]
    row = torch.tensor([ids])
    with torch.no_grad():
        wanted = GPT2LMHeadModel.from_pretrained(NANO, dtype=torch.float32).eval()(row, labels=row).loss
    assert made["tokens"] == len(ids) - 1 and made["loss"] == pytest.approx(float(wanted), abs=1e-4)
    assert main(["evaluate", str(tmp_path / "nothing")]) == 2


def test_a_vocabulary_of_another_model_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(NANO / name, tmp_path / name)
    checkpoint.save(GPT(GPTConfig(vocabulary=40, context=8, layers=1, heads=2, width=8)), tmp_path)
    (tmp_path / "t.txt").write_text("Once upon a time")
    assert main(["evaluate", str(tmp_path / "t.txt"), "--model", str(tmp_path), "--json"]) == 2
    told = capsys.readouterr()
    assert "different models" in told.err and told.err.count("\n") == 1 and not told.out


def test_rows_that_pad_the_embedding_are_no_tokens(tmp_path: Path) -> None:
    shape = GPTConfig(vocabulary=264, context=16, layers=2, heads=2, width=16)
    folder = save_byte_model(tmp_path / "padded", shape, padding=10.0)
    padded, vocabulary = open_gpt(folder, "padded", torch.device("cpu"))
    ids = vocabulary.encode("The cat sat on the mat, and slept there for a while.")
    found = evaluate(padded, ids, vocabulary.token_bytes)
    with torch.inference_mode():
        logits = padded(torch.tensor([ids[:16]]))[0, :, :257].double()
    first = F.cross_entropy(logits[:-1], torch.tensor(ids[1:16]), reduction="mean")
    assert evaluate(padded, ids[:16], vocabulary.token_bytes).loss == pytest.approx(float(first), abs=1e-4)
    assert found.loss < 9  # with the padding rows, whose logits are the largest, it was above 9
