"""The choices that a model's numbers depend on are said: in the model's line, `models info`, and on the screen."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tui_llm import cli, open_model
from tui_llm.facts.model import INT8_ERROR, ModelChoices

sys.path.append(str(Path(__file__).parent / "adapters"))
import foreign


def texts(choices: ModelChoices, **words: object) -> list[str]:
    return [choice.text for choice in choices.lines(**words)]  # type: ignore[arg-type]


def test_each_choice_is_said() -> None:
    usual = ModelChoices(tied=True, stored="float32")
    assert texts(usual) == ["float32 weights", "tied head", "no <|endoftext|> in front"]
    assert not any(choice.changes for choice in usual.lines())
    odd = ModelChoices(tied=False, stored="float16", padding=5, prefix_space=True, start="<s>", starts=True, chat=True)
    assert texts(odd) == [
        "float16 weights, computed in float32",
        "untied head",
        "5 padding rows left out of the softmax",
        "a space is put in front of the text",
        "no <s> in front, which the model expects",
        "chat template not applied",
    ]
    applied = texts(odd, dtype="int8", start_token=True, chat=True, fed=8, count=1200)
    assert applied[:2] == ["int8 weights: results differ", INT8_ERROR]
    assert applied[5:] == ["<s> in front", "chat template applied", "sees the last 8 of 1,200 tokens, its context"]
    assert texts(ModelChoices(start="")) == ["float32 weights"]
    assert texts(ModelChoices(stored="float32", computed="bfloat16"))[0] == "float32 weights, computed in bfloat16"


def test_a_llama_says_its_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = foreign.sentence_piece()
    foreign.make("llama", tmp_path / "llama", vocabulary, tie_word_embeddings=False)
    (tmp_path / "llama" / "chat_template.jinja").write_text(foreign.TEMPLATE)
    lab = open_model(str(tmp_path / "llama"), "cpu")
    made = [choice.text for choice in lab.read("The cat", chat=False).choices]
    assert made == [
        "float32 weights", "untied head", "5 padding rows left out of the softmax",
        "a space is put in front of the text", "no <s> in front, which the model expects", "chat template not applied",
    ]  # fmt: skip
    assert made[4] not in [choice.text for choice in lab.read("The cat", start_token=True).choices]
    assert "sees the last 48 of" in repr(lab.read("The cat sat on the mat. " * 20))
    assert cli.main(["models", "info", str(tmp_path / "llama"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["choices"] == made
    assert cli.main(["loss", "The", "--target", "cat", "--model", str(tmp_path / "llama"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["choices"] == made


def test_longrope_is_fed_its_first_context_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beyond it, all keys have other rotations, so that those in the cache are wrong: a text that is typed and one that is
    pasted had different logits."""
    rotary = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    reference = foreign.make("phi3", tmp_path / "phi", rope_parameters=rotary, original_max_position_embeddings=16)
    text = "The cat sat on the mat and the dog sat on the log with a little girl"
    typed, pasted = open_model(str(tmp_path / "phi"), "cpu"), open_model(str(tmp_path / "phi"), "cpu")
    for end in range(10, len(text), 7):
        typed.read(text[:end])
    one, other = typed.read(text, top=400), pasted.read(text, top=400)
    assert len(one.prompt_ids) > 16 and one.weights.context == 16
    wanted = foreign.full_logits(reference, list(one.prompt_ids)[-16:])[-1]
    for reading in (one, other):
        assert reading.distribution is not None
        for row in reading.distribution.candidates:
            assert row.logit == pytest.approx(float(wanted[row.id]), abs=1e-4)
    said = "context of 16 tokens, not 48: without LongRoPE's long factors"
    assert said in [choice.text for choice in one.choices]
    assert cli.main(["models", "info", str(tmp_path / "phi"), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["context"] == 16 and said in info["choices"]


def test_a_gpt2_says_the_same_from_its_files_and_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign.make("gpt2", tmp_path / "tied")
    foreign.make("gpt2", tmp_path / "untied", tie_word_embeddings=False)
    tensors = {key: value.to(torch.bfloat16) for key, value in load_file(tmp_path / "untied/model.safetensors").items()}
    save_file(tensors, tmp_path / "untied" / "model.safetensors", metadata={"format": "pt"})
    for name, said in (("tied", "float32 weights · tied head"), ("untied", "bfloat16 weights, computed in float32 · untied head")):  # fmt: skip
        moments = {"transformer.lm_head.weight": torch.zeros(9000, dtype=torch.float64)}
        save_file(moments, tmp_path / name / "optimizer.safetensors")  # as in a run's checkpoint
        assert cli.main(["models", "info", str(tmp_path / name)]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("choices"))
        assert said in line
        open_line = repr(open_model(str(tmp_path / name), "cpu").read("The cat")).splitlines()[1]
        assert line.removeprefix("choices").strip() == open_line


@pytest.mark.parametrize("weights", ["fp32", "half", "int8"])
def test_a_tied_head_stays_tied_in_fewer_bits(weights: str) -> None:
    line = repr(open_model("nano", "cpu", weights=weights).read("The cat")).splitlines()[1]
    assert "tied head" in line and "untied" not in line
