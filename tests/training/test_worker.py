"""A worker's results: checkpoints that other libraries can open, and a clear message if it fails."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.run_helpers import TINY, leftovers, losses, make, words, work
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.data import closed_vocabulary, stories
from tui_llm.llm.hub import hub
from tui_llm.llm.model import checkpoint
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.llm.tokens.vocabulary_folder import load_folder
from tui_llm.training.plan import launch
from tui_llm.training.plan.fields import starting_model
from tui_llm.training.run.settings import TrainingSettings, from_fields
from tui_llm.training.worker.export import export, export_gguf


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def test_transformers_opens_what_a_run_trained(text: Path) -> None:
    run = make("run", text, layers=2, width=32)
    assert work(run) == 0
    assert losses(run)[-1][1] < losses(run)[0][1] - 1
    step, folder = run.checkpoints()[-1]
    assert step == 30
    theirs, vocabulary = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    mine = load_folder(folder)
    sentence = "the cat — naïve 🙂\n\tslept"
    ids = mine.encode(sentence)
    assert vocabulary.encode(sentence) == ids == byte_level().encode(sentence)
    assert vocabulary.decode(ids) == sentence
    assert vocabulary.eos_token_id == mine.end_of_text == theirs.config.eos_token_id
    with torch.no_grad():
        fed = torch.tensor([ids[-16:]])
        assert torch.allclose(checkpoint.load(folder)(fed), theirs(fed).logits, atol=1e-4, rtol=0)
    facts = run.status()
    assert facts.vocabulary == 257 and facts.device == "cpu"
    assert facts.precision.startswith(("fp32, ", "bf16 matmuls, fp32 weights, "))
    assert facts.parameters == sum(p.numel() for p in theirs.parameters())
    assert [s.step for s in run.samples()] == [1, 10, 20, 30] and run.samples()[-1].prompt == "Once upon a time"


def test_a_run_that_diverges_fails_and_keeps_its_last_good_checkpoint(text: Path) -> None:
    run = make(
        "run",
        text,
        learning_rate=1e6,
        warmup_steps=10_000_000,  # increases by 0.1 with each step
        weight_decay=1.0,
        steps=1000,
        checkpoint_every=10,
    )
    assert work(run) == 1
    status = run.status()
    assert (
        status.state == "failed"
        and "step" in status.message
        and status.message.endswith("lower learning rate than 1e+06")
    )
    assert leftovers(run.path) == []
    step, folder = run.checkpoints()[-1]
    assert 10 <= step <= status.step
    assert all(torch.isfinite(tensor).all() for tensor in load_file(folder / "model.safetensors").values())
    assert work(run) == 1 and run.status() == status  # the same status after resuming


@pytest.mark.parametrize(
    ("content", "why"),
    [("abc", "too small: 4 tokens"), ("\n\n", "is empty"), ("x" * 2_000_000 + "\udcff", "not UTF-8 text")],
    ids=["short", "blank", "not-utf-8"],
)
def test_an_unusable_corpus_fails_with_one_line(text: Path, content: str, why: str) -> None:
    run = make("run", text)
    text.write_bytes(content.encode(errors="surrogateescape"))
    assert work(run) == 1
    assert run.status().state == "failed" and why in run.status().message and "\n" not in run.status().message
    assert run.checkpoints() == [] and leftovers(run.path) == []
    text.write_text(words(800))
    assert work(make("run", text, steps=2)) == 0  # the name can be used again


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_vocabulary_of_the_texts_characters_or_words_is_trained_and_resumed(
    text: Path, kind: str, tmp_path: Path
) -> None:
    run = make("run", text, tokenizer=kind, steps=4, sample_prompt="the cat", eval_every=2)
    assert work(run) == 0, run.status().message
    whole = text.read_text().strip("\n")
    assert read_json(run.path / "status.json")["vocabulary"] == len(closed_vocabulary.tokens([text], kind))
    vocabulary = hub.load_trained(run.checkpoints()[-1][1])
    if kind == "char":  # nanoGPT's ids
        assert [vocabulary.token_bytes(id).decode() for id in range(vocabulary.size)] == sorted(set(whole))
    launch.set_steps(run, 6)
    assert work(run) == 0 and [row[0] for row in losses(run)] == [1, 2, 3, 4, 5, 6]
    export(run, tmp_path / "model")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert theirs(whole[:200].rpartition(" ")[0]).input_ids == vocabulary.encode(whole[:200].rpartition(" ")[0])
    with pytest.raises(UserError, match="no byte-level BPE, and only that is written into a GGUF file"):
        export_gguf("run", tmp_path / "model.gguf", "f32")
    found, _ = starting_model(str(tmp_path / "model"))
    fields = from_fields({"from_model": str(found.folder), "steps": 1, "sample_prompt": "the"}, TINY)
    tuned = launch.create("tuned", [str(text)], fields, preset="toy", device="cpu", model=found.folder)
    assert work(tuned) == 0, tuned.status().message


def test_a_sample_prompt_that_the_vocabulary_lacks_fails_with_one_line(text: Path) -> None:
    run = make("run", text, tokenizer="char", sample_prompt="Zebra")
    assert work(run) == 1 and "has no character 'Z'" in run.status().message
    assert run.status().message.endswith("leave it out, with --sample-prompt TEXT")


def test_the_default_sample_prompt_is_left_out_where_the_vocabulary_lacks_it(text: Path) -> None:
    run = make("run", text, tokenizer="char", sample_prompt=TrainingSettings().sample_prompt, eval_every=2, steps=2)
    assert "O" not in text.read_text() and work(run) == 0, run.status().message
    samples = run.samples()
    assert samples and all(sample.prompt == "" and sample.text for sample in samples)


def test_records_are_trained_on_by_their_field(text: Path, tmp_path: Path) -> None:
    rows = [{"id": n, "body": line} for n, line in enumerate(text.read_text().split("\n"))]
    data = tmp_path / "rows.jsonl.gz"
    data.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    plain = tmp_path / "plain.txt"
    plain.write_text("<|endoftext|>".join(row["body"] for row in rows))
    with pytest.raises(UserError, match="it has: id, body; choose one with --field NAME"):
        make("records", data, steps=3)
    records, same = make("records", data, steps=3, field="body"), make("same", plain, steps=3)
    assert work(records) == 0 == work(same)
    assert losses(records) == losses(same)


def test_a_missing_device_fails_with_one_line(text: Path) -> None:
    run = make("run", text)
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    config = (run.path / "config.json").read_text()
    (run.path / "config.json").write_text(config.replace('"cpu"', '"cuda"'))
    assert work(run) == 1
    assert "no cuda device" in run.status().message


@pytest.mark.parametrize("name", ["python-reference", "stories"])
def test_a_named_corpus_is_trained_on_and_resumed(name: str) -> None:
    run = launch.create("run", [name], dataclasses.replace(TINY, steps=2), preset="toy", device="cpu")
    assert work(run) == 0 and [row[0] for row in losses(run)] == [1, 2]
    run.write_config(dataclasses.replace(run.config(), settings=dataclasses.replace(TINY, steps=4)))
    assert work(run) == 0 and [row[0] for row in losses(run)] == [1, 2, 3, 4]
    facts = read_json(run.path / "status.json")
    assert 0 < facts["bigram_entropy"] < facts["unigram_entropy"]
    assert facts.get("floor") == (stories.floor(byte_level().encode) if name == "stories" else None)
