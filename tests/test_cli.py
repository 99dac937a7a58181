"""The command line's contract: JSON as promised, text that people can read, one clear line for bad input."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tui_llm.cli import build_parser, main
from tui_llm.llm import tokenizer

NANO = Path(__file__).resolve().parents[1] / "models" / "nano"


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a wrong call answers with."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("tui-llm: ")
    assert "Traceback" not in err
    assert "\x1b" not in err
    return err


# ── contract ─────────────────────────────────────────────────────────────────────────────────────────────────────


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
    """A folder made by save_pretrained: the logits that transformers gives, to 1e-4."""
    layers, heads, width = shape
    torch.manual_seed(layers)
    vocabulary = tokenizer.load_folder(NANO)
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
    tokenizer.save_folder(vocabulary, tmp_path)
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


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = [
    "[/]",
    "[red]x",
    "[link='x",
    "[/usr/bin]",
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b31m",
    "a\u202eb\u2066c",
    "👩\u200d🚀",
    "\udcff",
    "<|endoftext|>",
    "\0",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_never_reaches_the_terminal(capsys: pytest.CaptureFixture[str], text: str) -> None:
    for arguments in (
        ["tokens", text],
        ["examples", text],
        ["logits", text, "--top", "3"],
        ["loss", "a", "--target", text],
        ["softmax", f"{text}=1"],
        ["generate", text, "--max-tokens", "2"],
    ):
        assert main(arguments) == 0, arguments
        out = capsys.readouterr().out
        assert not [
            c for c in out if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u200d"
        ], arguments
    assert (
        text.encode(errors="surrogateescape")
        not in refused(capsys, "logits", "a", "--model", text).encode(errors="surrogateescape")
        or text.isprintable()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["logits", ""], "nothing to predict from"),
        (["logits", "a", "--temperature", "-1"], "temperature is -1"),
        (["logits", "a", "--temperature", "nan"], "temperature is nan"),
        (["logits", "a", "--temperature", "inf"], "temperature is inf"),
        (["logits", "a", "--temperature", "hot"], "invalid float value"),
        (["logits", "a", "--top-p", "1.5"], "top-p is 1.5"),
        (["logits", "a", "--top-p", "nan"], "top-p is nan"),
        (["logits", "a", "--min-p", "-0.1"], "min-p is -0.1"),
        (["logits", "a", "--top-k", "-3"], "top-k is -3"),
        (["logits", "a", "--top", "0"], "--top is 0"),
        (["logits", "a", "--model", "no-such"], "there is no model"),
        (["logits", "a", "--model", "/no/such/folder"], "no model folder"),
        (["logits", "a", "--device", "abacus"], "no device"),
        (["logits", "a", "--device", "mps"], "no mps device"),
        (["tokens", "a", "--tokenizer", "no-such"], "no model"),
        (["softmax", "a"], "TOKEN=LOGIT"),
        (["softmax", "a=x"], "TOKEN=LOGIT"),
        (["softmax", "=1"], "TOKEN=LOGIT"),
        (["softmax", "a=nan", "b=1"], "NaN"),
        (["softmax", "a=inf", "b=1"], "+inf"),
        (["softmax", "a=-inf"], "all −inf"),
        (["loss", "a", "--target", ""], "target is empty"),
        (["loss", "", "--target", "b"], "nothing to predict from"),
        (["loss", "a"], "--target"),
        (["generate", ""], "nothing to predict from"),
        (["generate", "a", "--max-tokens", "-1"], "--max-tokens is -1"),
        (["train", "--run", "x"], "name a text file"),
        (["train", "/no/such.txt", "--run", "x"], "no file or folder"),
        (["train", __file__, "--run", "../x"], "can't name a run"),
        (["train", __file__, "--run", "x", "--preset", "huge"], "no preset"),
        (["train", __file__, "--run", "x", "--steps", "many"], "steps is 'many'"),
        (["train", __file__, "--run", "x", "--steps", "0"], "steps is 0"),
        (["train", __file__, "--run", "x", "--width", "30", "--heads", "4"], "not a multiple"),
        (["train", __file__, "--run", "x", "--tokenizer", "nope"], "no model"),
        (["stop", "nothing"], "no run"),
        (["export", "nothing", "somewhere"], "no run"),
        (["vocabulary", "add", "/no/such/file"], "can't read"),
        (["vocabulary", "train", "/no/such/file", "--out", "x"], "no file or folder"),
        (["fly"], "invalid choice"),
        (["--fly"], "--help"),
        (["--device", "abacus"], "no device"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_one_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize(
    "options",
    [
        ["--temperature", "0"],
        ["--top-p", "0"],
        ["--top-p", "1"],
        ["--temperature", "1e-30"],
        ["--temperature", "1e30"],
    ],
    ids=" ".join,
)
def test_the_ends_of_the_scales(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    made = run_json(capsys, "logits", "Once", "--top", "4096", *options)
    assert sum(row["probability"] for row in made["candidates"]) == pytest.approx(1, abs=1e-6)
    if options in (["--temperature", "0"], ["--top-p", "0"], ["--temperature", "1e-30"]):
        assert [row["kept"] for row in made["candidates"]].count(True) == 1
        assert made["candidates"][0]["probability"] == 1


def test_a_prompt_longer_than_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    text = "the cat sat on the mat " * 100
    assert run_json(capsys, "logits", text, "--top", "1")["fed"] == 256
    assert main(["logits", text]) == 0
    assert "sees the last 256 of" in capsys.readouterr().out


def process(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tui_llm", *arguments], capture_output=True, text=True, timeout=60, **more
    )


def test_output_that_nobody_reads_is_no_error() -> None:
    """`tui-llm examples … | head -1` ends quietly."""
    command = [sys.executable, "-m", "tui_llm", "examples", "word " * 20000]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr is not None
        assert child.stderr.read() == b""
        assert child.wait(60) == 0


def test_the_app_without_a_terminal_says_so() -> None:
    done = process(stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "terminal" in done.stderr


def test_bytes_that_are_no_text_in_an_argument() -> None:
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"tui_llm", b"tokens", b"a\xff\x1b[0m", b"--json"],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert json.loads(done.stdout)["count"] >= 2


def test_every_option_has_help() -> None:
    parser = build_parser()
    subparsers = next(a for a in parser._actions if a.dest == "command")
    for name, sub in (subparsers.choices or {}).items():
        assert sub.description or name == "vocabulary"
        for action in sub._actions:
            assert action.help or not action.option_strings or action.dest in ("dtype",), (name, action.dest)
