"""Fine-tuning on instruction–answer pairs: the loss and its gradient come from the answers' tokens alone."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoTokenizer

from tests.llm.test_tokenizer import NANO
from tests.llm.test_tokenizer_layouts import BYTES, END, LLAMA_3, MERGES, PREFIX, save_5
from tui_llm import cli
from tui_llm.common import paths
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.instruments.sft.question import LEARNED, LONGEST, Instructed, InstructQuestion
from tui_llm.llm.adapters.chat import INSTRUCT, template_of
from tui_llm.llm.data import instruction_pairs
from tui_llm.llm.data.instruction_pairs import EXAMPLES, Pair, parse, show
from tui_llm.llm.hub import lookup
from tui_llm.llm.learn.instruct import IGNORE, Example, Tuner, example, loss, padded, prompt
from tui_llm.llm.learn.undoable import enough_memory
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.llm.tokens.vocabulary_folder import load_folder


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


def tiny() -> GPT:
    torch.manual_seed(1)
    return GPT(GPTConfig(vocabulary=11, context=8, layers=1, heads=2, width=8))


ROWS = [Example((1, 2, 3, 4), (IGNORE, IGNORE, 4, 5)), Example((6, 7), (IGNORE, 8))]


def test_the_gradient_on_instruction_tokens_is_zero() -> None:
    torch.manual_seed(0)
    _, targets = padded(ROWS)
    logits = torch.randn(2, 4, 11, requires_grad=True)
    loss(logits, targets).backward()
    assert logits.grad is not None
    counted = targets != IGNORE
    assert torch.equal(logits.grad[~counted], torch.zeros_like(logits.grad[~counted]))
    # p − y, divided by the number of the answers' tokens
    expected = (logits.softmax(-1) - F.one_hot(targets.clamp(min=0), 11))[counted] / counted.sum()
    torch.testing.assert_close(logits.grad[counted], expected)


def test_loss_is_the_mean_over_answer_tokens_and_padding_changes_nothing() -> None:
    model = tiny().eval()
    inputs, targets = padded(ROWS)
    together = loss(model(inputs), targets)
    single = []
    for row in ROWS:
        logs = model(torch.tensor([row.inputs]))[0].log_softmax(-1)
        single += [-logs[t, target] for t, target in enumerate(row.targets) if target != IGNORE]
    torch.testing.assert_close(together, torch.stack(single).mean())


def test_examples_mask_the_question_and_end_the_answer(engine: PipelineEngine) -> None:
    vocabulary = engine.tokenizer
    one = example(Pair("What is it?", "A cat."), vocabulary, 256)
    asked = vocabulary.encode("What is it?")
    assert one.targets[: len(asked) - 1] == (IGNORE,) * (len(asked) - 1)
    answer = one.targets[len(asked) - 1 :]
    assert answer[-1] == vocabulary.end_of_text and vocabulary.decode(answer[:-1]) == "\nA cat."
    assert one.answer_tokens == len(answer) and one.inputs[0] == asked[0]
    with pytest.raises(UserError, match="shorten"):
        example(Pair("word " * 300, "x"), vocabulary, 256)


def _whole(pre: Any, folder: Path) -> tuple[Tokenizer, Any]:
    """nano's vocabulary with a token for `?` and a line break, cut by the rule `pre`: ours, and transformers' with our template."""
    vocab = json.loads((NANO / "vocab.json").read_text())
    vocab["?Ċ"] = len(vocab)
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[*MERGES, ("?", "Ċ")]))
    made.pre_tokenizer, made.decoder = pre, tokenizers.decoders.ByteLevel()
    made.add_special_tokens([END])
    save_5(folder, made, chat_template=INSTRUCT)
    return load_folder(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("question", ["Who are you?", "Say your name", "Why?!"])
@pytest.mark.parametrize(
    "pre",
    [
        tokenizers.pre_tokenizers.Sequence([tokenizers.pre_tokenizers.Split(tokenizers.Regex(LLAMA_3), "isolated"), BYTES]),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        PREFIX,
    ],
    ids=["Llama 3", "GPT-2", "a space in front"],
)  # fmt: skip
def test_what_is_learned_is_what_is_asked_and_answered(pre: Any, question: str, tmp_path: Path) -> None:
    """The ids are those that transformers makes of the chat, where `?` and a line break can be one token."""
    ours, theirs = _whole(pre, tmp_path)
    asked = [{"role": "user", "content": question}]
    told = [*asked, {"role": "assistant", "content": "I am Tim."}]
    fed, whole = (theirs.encode(theirs.apply_chat_template(one, tokenize=False)) for one in (asked, told))
    one = example(Pair(question, "I am Tim."), ours, 256)
    assert prompt(question, ours) == fed == whole[: len(fed)]
    assert [*one.inputs, whole[-1]] == whole
    learned = [id for id in one.targets if id != IGNORE]
    apart = ours.encode(question) == fed[:-1]  # the line break is a token of its own
    assert learned == whole[len(fed) - apart :] and one.targets[-len(learned) :] == tuple(learned)
    template = template_of(tmp_path, "x")
    assert template is not None and template.encode(question, ours, False) == fed
    assert apart or (question == "Who are you?" and "Split" in str(pre))


def test_fine_tuning_changes_the_copy_only_and_continues_after_an_interruption() -> None:
    origin = tiny()
    before = [p.clone() for p in origin.parameters()]
    whole, broken = Tuner(origin, ROWS, 11, 1e-2), Tuner(origin, ROWS, 11, 1e-2)
    after = whole.go(6)
    turns = iter([False, False, True])
    with pytest.raises(Overtaken):
        broken.go(6, lambda: next(turns))
    assert len(broken.losses) == 2 and broken.go(6) == after and broken.losses == whole.losses
    assert after < whole.losses[0]
    assert all(torch.equal(a, b) for a, b in zip(before, origin.parameters(), strict=True))
    with pytest.raises(UserError, match="learning rate"):
        Tuner(origin, ROWS, 11, 1e30).go(5)


@pytest.mark.parametrize("scale", [0.3, 1.0], ids=["not clipped", "clipped"])
def test_the_steps_are_adamw_s_on_the_loss_written_out(scale: float) -> None:
    """Betas, no weight decay, and torch's clip: with weights of the usual size the gradient's norm is above 1."""
    origin = tiny().double()
    with torch.no_grad():
        for parameter in origin.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
        for parameter in (origin.tokens.weight, *origin.norm.parameters()):
            parameter.mul_(scale)
    tuner = Tuner(origin, ROWS, 10, 1e-2)
    tuner.go(3)
    model = copy.deepcopy(origin).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    # AdamW turns the rounding of gradients that should be 0 into steps: those of the keys' biases, and of tokens not used.
    sure = [torch.ones_like(parameter, dtype=torch.bool) for parameter in model.parameters()]
    losses, norms = [], []
    for _ in range(3):
        optimizer.zero_grad()
        terms = []
        for row in ROWS:
            logs = model(torch.tensor([row.inputs]))[0, :, :10].log_softmax(-1)
            terms += [-logs[at, target] for at, target in enumerate(row.targets) if target != IGNORE]
        now = torch.stack(terms).mean()
        now.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        for mask, parameter in zip(sure, model.parameters(), strict=True):
            assert parameter.grad is not None
            mask &= parameter.grad.abs() > 1e-4
        optimizer.step()
        losses.append(float(now.detach()))
    assert (max(norms) > 1) == (scale == 1), norms
    assert tuner.losses == pytest.approx(losses, rel=1e-6)
    assert sum(int(mask.sum()) for mask in sure) > 0.7 * sum(p.numel() for p in model.parameters())
    for mask, mine, other in zip(sure, tuner.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine[mask], other[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't allocate memory: you tried"), torch.OutOfMemoryError("x")]
)
def test_too_little_memory_is_one_line(error: Exception) -> None:
    with pytest.raises(UserError, match="smaller"), enough_memory(0, "fewer pairs"):
        raise error
    with pytest.raises(RuntimeError, match="other"), enough_memory(0, "fewer pairs"):
        raise RuntimeError("other")


def test_nano_answers_what_it_was_taught_and_the_folder_opens(engine: PipelineEngine) -> None:
    pairs = EXAMPLES[:2]
    told = engine.answer(InstructQuestion(Request(), pairs, 8))
    assert isinstance(told, Instructed) and told.name == "assistant" and told.after < 0.1 < told.before
    assert told.answer_tokens < told.tokens and len(told.losses) == 8
    assert lookup.find("assistant").folder == paths.models_dir() / "assistant"
    assert pairs[0].question in (Path(told.folder) / "README.md").read_text(encoding="utf-8")
    again = PipelineEngine("cpu")
    again.open("assistant")
    ids = again.tokenizer.encode(pairs[0].question)
    with torch.no_grad():
        for _ in range(20):
            ids.append(int(again.gpt(torch.tensor([ids]))[0, -1, : again.tokenizer.size].argmax()))
            if ids[-1] == again.tokenizer.end_of_text:
                break
    assert again.tokenizer.decode(ids[:-1]) == f"{pairs[0].question}\n{pairs[0].answer}"
    with pytest.raises(UserError, match="already"):
        engine.answer(InstructQuestion(Request(), pairs, 1, name="assistant"))


def test_tuning_goes_on_until_the_pairs_are_learned_but_not_for_ever(
    engine: PipelineEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = engine.answer(InstructQuestion(Request(), EXAMPLES[:2], 1, learned=LEARNED))
    assert 1 < len(told.losses) < LONGEST and told.after <= LEARNED
    assert f"after {len(told.losses)} steps" in (Path(told.folder) / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr("tui_llm.instruments.sft.answer.LONGEST", 3)
    assert len(engine.answer(InstructQuestion(Request(), EXAMPLES[:2], 1, learned=0)).losses) == 3


@pytest.mark.parametrize("question", [InstructQuestion(Request()), InstructQuestion(Request(), EXAMPLES, 0),
                                      InstructQuestion(Request(), EXAMPLES, 1, math.nan)])  # fmt: skip
def test_invalid_fine_tuning_requests_are_refused(engine: PipelineEngine, question: InstructQuestion) -> None:
    with pytest.raises(UserError):
        engine.answer(question)


def test_pairs_as_typed_and_from_files(tmp_path: Path) -> None:
    assert parse(show(EXAMPLES)) == EXAMPLES
    table, lines = tmp_path / "pairs.tsv", tmp_path / "pairs.jsonl"
    table.write_text("What?\tThat.\n\n[/]\t\x1b[31m\u202e\n", encoding="utf-8")
    assert instruction_pairs.read(table) == (Pair("What?", "That."), Pair("[/]", "\x1b[31m\u202e"))
    lines.write_text(json.dumps({"instruction": "What?", "output": "That."}) + "\n", encoding="utf-8")
    assert instruction_pairs.read(lines) == (Pair("What?", "That."),)
    for wrong in ("", "no arrow", "=> only an answer", "only a question =>", "a => b\n" * 201):
        with pytest.raises(UserError):
            parse(wrong)
    for broken in ("[1]\n", "{", '{"question": 1, "answer": "x"}', "[" * 100_000):
        lines.write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match="is not a pair"):
            instruction_pairs.read(lines)


@given(st.text())
def test_any_text_is_pairs_or_one_clear_line(text: str) -> None:
    try:
        assert all(pair.question and pair.answer for pair in parse(text))
    except UserError as error:
        assert "pair" in str(error)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("Who are you?\tI am Tim.\n", encoding="utf-8")
    say = ["train", str(pairs), "--from", "nano", "--instruct", "--steps", "2", "--device", "cpu"]
    assert cli.main([*say, "--run", "tim", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "tim" and told["loss_after"] < told["loss_before"] and told["steps"] == 2
    assert (paths.models_dir() / "tim" / "model.safetensors").is_file()
    for wrong in (["--run", "tim"], ["--preset", "toy"], ["--steps", "x"], ["--width", "64"]):
        assert cli.main([*say, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["train", str(pairs), "--instruct"]) == 2
    assert "--from nano" in capsys.readouterr().err
