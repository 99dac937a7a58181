"""The command line: the documented JSON, and readable text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tui_llm.cli import main
from tui_llm.llm.tokens import vocabulary_folder

NANO = Path(__file__).resolve().parents[1] / "models" / "nano"


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Returns the one line of error of an invalid call."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("tui-llm: ")
    assert "Traceback" not in err
    assert "\x1b" not in err
    return err


def test_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "tokens", "Hello 🙂")
    assert list(made) == ["tokenizer", "count", "tokens"]
    assert made["tokenizer"] == "nano"
    assert made["count"] == len(made["tokens"])
    assert bytes.fromhex("".join(t["bytes"] for t in made["tokens"])).decode() == "Hello 🙂"
    assert any(t["text"] == "<0xF0>" for t in made["tokens"])
    letters = run_json(capsys, "tokens", "héllo", "--tokenizer", "char")
    assert [t["text"] for t in letters["tokens"]] == list("héllo")
    assert run_json(capsys, "tokens", "héllo", "--tokenizer", "byte")["count"] == 6
    assert run_json(capsys, "tokens", "a b a", "--tokenizer", "word")["count"] == 5


def test_examples(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "examples", "Once upon a time")
    assert made["count"] == len(made["pairs"]) == 3
    assert made["pairs"][-1]["input_text"] + made["pairs"][-1]["target_text"] == "Once upon a time"
    assert made["pairs"][1]["input"] == made["pairs"][2]["input"][:2]
    assert made["pairs"][0]["target"] == made["pairs"][1]["input"][-1]
    assert run_json(capsys, "examples", "")["count"] == 0


@pytest.mark.parametrize("shape", [(2, 2, 32), (3, 4, 64)], ids=str)
def test_logits_equal_transformers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    """The logits of a folder made by save_pretrained equal those of transformers within 1e-4."""
    layers, heads, width = shape
    torch.manual_seed(layers)
    vocabulary = vocabulary_folder.load_folder(NANO)
    reference = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary.size,
            n_positions=64,
            n_layer=layers,
            n_head=heads,
            n_embd=width,
            initializer_range=0.3,
        )
    ).eval()
    reference.save_pretrained(tmp_path)
    vocabulary_folder.save_folder(vocabulary, tmp_path)
    made = run_json(capsys, "logits", "The cat sat on the", "--model", str(tmp_path), "--top", "5000")
    ids = AutoTokenizer.from_pretrained(tmp_path).encode("The cat sat on the")
    assert made["prompt_ids"] == ids
    with torch.no_grad():
        wanted = reference(torch.tensor([ids])).logits[0, -1]
    assert made["vocabulary"] == len(made["candidates"]) == 4096
    for row in made["candidates"]:
        assert row["logit"] == pytest.approx(float(wanted[row["id"]]), abs=1e-4)
    assert made["logsumexp"] == pytest.approx(float(wanted.logsumexp(-1)), abs=1e-4)
    assert made["entropy"] == pytest.approx(float(torch.distributions.Categorical(logits=wanted).entropy()), abs=1e-3)
    assert made["rest"] == {"count": 0, "raw_probability": 0.0, "probability": 0.0, "kept": 0}
    assert sum(row["probability"] for row in made["candidates"]) == pytest.approx(1, abs=1e-6)


def test_logits_fields_and_cut(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(
        capsys,
        "logits",
        "Once upon a",
        "--top",
        "7",
        "--temperature",
        "0.7",
        "--top-k",
        "5",
        "--top-p",
        "0.9",
        "--min-p",
        "0.01",
    )
    for field in ("model", "step", "prompt_ids", "vocabulary", "logsumexp", "entropy", "candidates", "rest"):
        assert field in made
    for row in made["candidates"]:
        assert {
            "rank",
            "id",
            "bytes",
            "text",
            "logit",
            "raw_probability",
            "probability",
            "cumulative",
            "kept",
        } <= set(row)
        assert row["kept"] == (row["probability"] > 0)
    assert made["rest"]["count"] == made["vocabulary"] - 7
    kept = [row for row in made["candidates"] if row["kept"]]
    assert 1 <= len(kept) <= 5
    assert sum(row["probability"] for row in kept) == pytest.approx(1)
    total = sum(row["raw_probability"] for row in made["candidates"]) + made["rest"]["raw_probability"]
    assert total == pytest.approx(1, abs=1e-5)


def test_nano_agrees_with_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    text = "Once upon a time, there was a little"
    reference, vocabulary = (
        AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(NANO),
    )
    made = run_json(capsys, "logits", text, "--top", "4096")
    ids = vocabulary.encode(text)
    assert made["prompt_ids"] == ids
    with torch.no_grad():
        wanted = reference(torch.tensor([ids])).logits[0, -1]
    for row in made["candidates"]:
        assert row["logit"] == pytest.approx(float(wanted[row["id"]]), abs=1e-4)
    best = [row["text"].strip() for row in made["candidates"][:10]]
    assert {"girl", "boy"} & set(best), best


def test_softmax_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "softmax", "mat=3.2", "rug=1.3", "moon=-2.1")
    assert [row["text"] for row in made["candidates"]] == ["mat", "rug", "moon"]
    assert [round(row["raw_probability"] * 100, 1) for row in made["candidates"]] == [86.6, 13.0, 0.4]
    assert round(-math.log(made["candidates"][0]["raw_probability"]), 2) == 0.14
    assert round(-math.log(0.01), 2) == 4.61
    assert main(["softmax", "mat=3.2", "rug=1.3", "moon=-2.1"]) == 0
    text = capsys.readouterr().out
    assert all(number in text for number in ("86.6 %", "13.0 %", "0.43 %"))


@pytest.mark.parametrize(
    ("temperature", "wanted"),
    [("0.5", [53.3, 30.0, 13.3, 3.3]), ("2", [32.5, 28.2, 23.0, 16.3]), ("1", [40, 30, 20, 10])],
)
def test_temperature_by_hand(capsys: pytest.CaptureFixture[str], temperature: str, wanted: list[float]) -> None:
    words = [f"t{p}={math.log(p)!r}" for p in (40, 30, 20, 10)]
    made = run_json(capsys, "softmax", *words, "--temperature", temperature)
    assert [round(row["probability"] * 100, 1) for row in made["candidates"]] == wanted


def test_a_token_with_an_equals_sign_and_minus_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "softmax", "a=b=1", "c=-inf", "[red]x=1")
    assert [row["text"] for row in made["candidates"]] == ["a=b", "[red]x", "c"]
    assert [row["probability"] for row in made["candidates"]] == [0.5, 0.5, 0]


def test_loss(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "loss", "Once upon", "--target", " a time")
    for field in ("prompt_ids", "target_ids", "tokens", "sum", "mean", "bits", "perplexity", "uniform_loss"):
        assert field in made
    reference = AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32).eval()
    ids = made["prompt_ids"] + made["target_ids"]
    with torch.no_grad():
        logits = reference(torch.tensor([ids])).logits[0]
    for i, row in enumerate(made["tokens"], start=len(made["prompt_ids"]) - 1):
        assert row["loss"] == pytest.approx(
            float(torch.nn.functional.cross_entropy(logits[i], torch.tensor(row["id"]))), abs=1e-4
        )
        assert row["loss"] == pytest.approx(row["logsumexp"] - row["logit"], abs=1e-5)
        assert row["loss"] == pytest.approx(-math.log(row["probability"]), abs=1e-4)
    assert made["sum"] == pytest.approx(sum(row["loss"] for row in made["tokens"]))
    assert made["bits"] == pytest.approx(made["mean"] / math.log(2))
    assert made["uniform_loss"] == pytest.approx(math.log(4096))


def test_generate(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "generate",
        "Once upon a time",
        "--max-tokens",
        "12",
        "--seed",
        "3",
        "--temperature",
        "0.9",
        "--top-p",
        "0.95",
        "--ignore-end",
    )
    made = run_json(capsys, *arguments)
    assert len(made["ids"]) == len(made["steps"]) == 12
    assert [step["id"] for step in made["steps"]] == made["ids"]
    assert all(0 <= step["u"] < 1 and 0 < step["probability"] <= 1 and step["rank"] >= 1 for step in made["steps"])
    assert AutoTokenizer.from_pretrained(NANO).decode(made["ids"]) == made["text"]
    assert run_json(capsys, *arguments) == made
    assert main(list(arguments)) == 0
    assert capsys.readouterr().out.rstrip("\n") == ("Once upon a time" + made["text"]).rstrip("\n")


def test_greedy_generation_equals_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "generate", "Once upon a time", "--max-tokens", "20", "--temperature", "0", "--ignore-end")
    reference = AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32).eval()
    ids = torch.tensor([made["prompt_ids"]])
    wanted = reference.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=20,
        min_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert made["ids"] == wanted[0, ids.shape[1] :].tolist()
    assert all(step["u"] is None and step["rank"] == 1 for step in made["steps"])


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run_json(capsys, "models")["models"]
    assert [row["name"] for row in rows] == ["nano"]
    assert rows[0]["vocabulary"] == 4096
    assert main(["models"]) == 0
    assert "nano" in capsys.readouterr().out
