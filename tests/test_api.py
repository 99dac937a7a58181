"""The Python API: its results are those that the command line prints."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tui_llm.api import LanguageModel, open_model
from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.neighbours.question import NeighboursQuestion


@pytest.fixture(scope="module")
def lab() -> LanguageModel:
    return open_model("nano", "cpu")


def test_a_reading_is_the_command_lines(lab: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    reading = lab.read("The cat sat on the", target=" mat", top=5)
    assert main(["logits", "The cat sat on the", "--top", "5", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert reading.distribution is not None and reading.loss is not None
    assert [c.id for c in reading.distribution.candidates] == [c["id"] for c in printed["candidates"]]
    assert reading.distribution.logsumexp == pytest.approx(printed["logsumexp"])
    assert reading.loss.perplexity == pytest.approx(math.exp(reading.loss.mean))
    assert lab.read("The cat", target=5).loss is not None


def test_reprs(lab: LanguageModel) -> None:
    reading = lab.read("The [red]cat\x1b", target=" mat", top=3)
    text = repr(reading)
    assert "parameters" in text and "raw p" in text and "nats" in text and "\x1b" not in text
    console = Console(width=200, file=io.StringIO())
    with console.capture() as seen:
        console.print(reading)
    assert seen.get().rstrip() == text and "[│red│]" in text
    assert reading._repr_html_().startswith("<pre>") and "<red" not in reading._repr_html_()
    assert "nano" in repr(lab) and "cpu" in repr(lab)
    assert "after the first 1" in repr(lab.read("The cat sat", position=1))


def test_write_returns_generated_text(lab: LanguageModel) -> None:
    made = list(lab.generate("Once upon a", max_tokens=5, seed=3, sampler=SamplerSettings(0.8)))
    assert lab.write("Once upon a", max_tokens=5, seed=3, sampler=SamplerSettings(0.8)) == "".join(t.text for t in made)
    assert lab.ask(NeighboursQuestion(Request(), made[0].id, 3)).nearest
    assert [t.bytes for t in lab.tokens("ab c").tokens] and lab.weights.name == "nano"


@pytest.mark.parametrize("fed", [{}, {"start_token": True}, {"allow_special": True}])
def test_what_is_generated_is_what_read_predicts(lab: LanguageModel, fed: dict[str, bool]) -> None:
    """The first token is drawn from the distribution that `read` shows for the same arguments."""
    prompt, greedy = "<|endoftext|>Once", SamplerSettings(temperature=0)
    first = next(lab.generate(prompt, max_tokens=1, sampler=greedy, **fed))  # type: ignore[arg-type]
    reading = lab.read(prompt, top=1, **fed)  # type: ignore[arg-type]
    likeliest = reading.distribution.candidates[0]  # type: ignore[union-attr]
    assert (first.id, first.raw_probability) == (likeliest.id, pytest.approx(likeliest.raw_probability, rel=1e-4))
    assert lab.write(prompt, max_tokens=1, sampler=greedy, **fed) == first.text  # type: ignore[arg-type]
    assert len(reading.prompt_ids) != len(lab.read(prompt, top=1, allow_special="allow_special" not in fed).prompt_ids)


@given(st.text(max_size=30))
@settings(deadline=None, max_examples=30)
def test_any_text_is_read_or_refused_in_a_line(lab: LanguageModel, text: str) -> None:
    try:
        assert repr(lab.read(text, top=2))
    except UserError as error:
        assert "\n" not in str(error)


def test_invalid_arguments_are_refused(lab: LanguageModel) -> None:
    for bad in (
        lambda: lab.read(""),
        lambda: lab.read("a", target=""),
        lambda: open_model("no such model"),
        lambda: lab.read("The cat", position=3),
        lambda: lab.read("The cat", position=-1),
        lambda: lab.read("The cat", top=0),
        lambda: lab.write("The cat", max_tokens=-1),
        lambda: lab.compare("The cat", "nano:int8", max_tokens=-1),
        lambda: lab.steer("The cat", "a", "b", max_tokens=-1),
        lambda: lab.rank([("", " a", " b")]),
        lambda: lab.heads(seed=2**62),
    ):
        with pytest.raises(UserError):
            bad()
    assert lab.read("The cat", position=2).position == 2 and lab.write("The cat", max_tokens=0) == ""


def test_importing_the_package_is_free_and_typed() -> None:
    code = "import sys, tui_llm; assert 'torch' not in sys.modules; from tui_llm import open_model; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute"):
        import tui_llm

        tui_llm.nonsense  # noqa: B018


def test_fine_tuning_and_comparing_are_the_command_lines(
    lab: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "tim")
    state = lab.sft([("Who are you?", "I am Tim.")], steps=2, keep=folder)
    assert main(("sft", "--pair", "Who are you? => I am Tim.", "--steps", "2", "--json", "--device", "cpu")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["losses"] == list(state.losses) and told["pairs"][0]["answer_after"] == state.pairs[0].answer_after
    found = lab.compare("Who are you?", folder, "nano:int8", max_tokens=2)
    assert main(("compare-models", "nano", folder, "nano:int8", "Who are you?", "--max-tokens", "2", "--json", "--device", "cpu")) == 0  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert [one["kl_p_q_bits"] for one in told["divergences"]] == [one.forward for one in found.divergences]
    for wrong in ([], [("a", "")]):
        with pytest.raises(UserError):
            lab.sft(wrong)
    with pytest.raises(UserError):
        lab.compare("x")


def test_patch_and_steer_are_the_command_lines(
    lab: LanguageModel, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["patch", "Tom saw a cat", "Tom saw a dog", "--part", "mlp", "--target", " and", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    grid = lab.patch("Tom saw a cat", "Tom saw a dog", target=" and", part="mlp")
    assert [pytest.approx(row, abs=1e-5) for row in grid.effects] == printed["effects"]
    rival = lab.patch("Tom saw a cat", "Tom saw a dog", target=" and", rival=5).piece.rival
    assert rival.id == 5
    file = str(tmp_path / "d.safetensors")
    made = lab.steer("The dog was", "so happy", "so sad", coefficient=2, save=file, max_tokens=3)
    assert (
        made.direction.layer == 2
        and lab.steer("The dog was", load=file, coefficient=2, max_tokens=3).after == made.after
    )
    with pytest.raises(UserError, match="already exists"):
        lab.steer("The dog was", "so happy", "so sad", save=file, max_tokens=1)
    with pytest.raises(UserError, match="can't be patched"):
        lab.patch("a", "b", part="logits")


@pytest.mark.parametrize(("front", "fed"), [("", {"start_token": True}), ("<|endoftext|>", {"allow_special": True})])
@torch.no_grad()
def test_changes_and_effects_of_a_text_with_a_start_token_are_those_of_transformers(
    lab: LanguageModel, front: str, fed: dict[str, bool]
) -> None:
    from transformers import GPT2LMHeadModel

    theirs = GPT2LMHeadModel.from_pretrained(paths.shipped_models_dir() / "nano", dtype=torch.float32).eval()
    blocks, encode = theirs.transformer.h, lab.engine.tokenizer.encode
    end = lab.engine.tokenizer.end_of_text
    (target,) = encode(" happy")

    def after(text: str) -> torch.Tensor:
        return theirs(torch.tensor([[end, *encode(text)]])).logits[0, -1]

    prompt = "The dog was so"
    plain = after(prompt)
    size = theirs.config.n_embd // theirs.config.n_head
    keep = torch.ones(theirs.config.n_embd).index_fill(0, torch.arange(size, 2 * size), 0.0)
    hook = blocks[1].attn.c_proj.register_forward_pre_hook(lambda module, args: (args[0] * keep, *args[1:]))
    off = after(prompt)
    hook.remove()
    before, changed = (-float(one.log_softmax(-1)[target]) for one in (plain, off))
    made = lab.ablate(front + prompt, heads="1.1", target=" happy", **fed)
    assert [made.before.loss, made.after.loss] == pytest.approx([before, changed], abs=1e-3)
    effects = lab.effects(front + prompt, target=" happy", **fed)
    alone = next(one for one in effects.parts if (one.part.layer, one.part.head) == (1, 1))
    assert [effects.before.loss, alone.values.loss] == pytest.approx([before, changed], abs=1e-3)

    grid = lab.patch(front + "The cat was so", front + prompt, target=target, rival=5, **fed)
    differences = [float(one[target] - one[5]) for one in (after("The cat was so"), plain)]
    assert [grid.piece.clean, grid.piece.changed] == pytest.approx(differences, abs=1e-3)
    assert grid.piece.tokens[0].id == end

    streams: list[torch.Tensor] = []
    hook = blocks[2].register_forward_pre_hook(lambda module, args: streams.append(args[0][0, -1].clone()))
    after("so happy")
    after("so sad")
    hook.remove()
    added = 2 * (streams[0] - streams[1])
    hook = blocks[2].register_forward_pre_hook(lambda module, args: (args[0] + added, *args[1:]))
    steered = after(prompt)
    hook.remove()
    side = lab.steer(front + prompt, front + "so happy", front + "so sad", layer=2, coefficient=2, max_tokens=1, **fed)
    for rows, wanted in ((side.before.candidates, plain), (side.after.candidates, steered)):
        assert [row.logit for row in rows] == pytest.approx([float(wanted[row.id]) for row in rows], abs=1e-3)


def test_a_model_without_a_template_says_so_whatever_looks_inside(lab: LanguageModel) -> None:
    for ask in (
        lambda: lab.ablate("a b", heads="0.0", chat=True),
        lambda: lab.effects("a b", chat=True),
        lambda: lab.patch("a b", "a c", chat=True),
        lambda: lab.steer("a", "b", "c", chat=True),
    ):
        with pytest.raises(UserError, match="chat template"):
            ask()
