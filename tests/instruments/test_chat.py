"""Chat: the text and the ids of a conversation against transformers, the answer in parts, refusal, Ctrl+C."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tui_llm.cli import main
from tui_llm.commands.shared.streams import LONGEST
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.chat import ChatMessage
from tui_llm.facts.request import Request
from tui_llm.instruments.chat.question import ChatQuestion, text_of
from tui_llm.instruments.sft.question import InstructQuestion
from tui_llm.llm.adapters.chat import INSTRUCT, ChatTemplate, template_of
from tui_llm.llm.data.instruction_pairs import Pair

TALK = (
    ChatMessage("user", "Who"),
    ChatMessage("assistant", "A small model."),
    ChatMessage("user", "Why <|endoftext|>"),
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMED = "{% for m in messages %}[{{ m['content'] | trim | upper }}]{% endfor %}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "copy"
    engine = PipelineEngine("cpu")
    engine.open("nano")
    engine.answer(InstructQuestion(Request(), (Pair("Who", "A small model."),), 6, name=str(folder)))
    return folder


@pytest.fixture(scope="module")
def engine(copy: Path) -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open(str(copy))
    return engine


def test_transformers_formats_an_instruct_copy_the_same(copy: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(copy))
    messages = [{"role": one.role, "content": one.text} for one in TALK]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    template = template_of(copy, "copy")
    assert template is not None
    assert "".join(text for text, _ in template.conversation(TALK)) == theirs


@pytest.mark.parametrize("template", [CHATML, TRIMMED, INSTRUCT + " "])
def test_other_templates_go_through_transformers(template: str) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [{"role": one.role, "content": one.text} for one in TALK]
    made = utils.render_jinja_template(
        conversations=[messages], chat_template=template, add_generation_prompt=True, eos_token="<|endoftext|>"
    )
    theirs = made[0][0] if isinstance(made, tuple) else made
    pieces = ChatTemplate(template, {"eos_token": "<|endoftext|>"}, "here").conversation(TALK)
    assert "".join(text for text, _ in pieces) == theirs
    assert [text for text, inside in pieces if inside] == (
        [theirs] if template == TRIMMED else [one.text for one in TALK]
    )


def test_special_tokens_in_a_message_are_plain_text(engine: PipelineEngine) -> None:
    part = engine.answer(ChatQuestion(Request(), TALK, count=0))
    assert part.fed_text == "Who\nA small model.<|endoftext|>Why <|endoftext|>\n"
    end = engine.tokenizer.end_of_text
    assert part.fed_ids.count(end) == 1  # the template's
    assert engine.tokenizer.decode(list(part.fed_ids)) == part.fed_text


def test_parts_do_not_change_the_answer(engine: PipelineEngine) -> None:
    question = ChatQuestion(Request(), TALK[:1], seed=5, count=6)
    whole = engine.answer(question).tokens
    made: tuple[Any, ...] = ()
    for _ in whole:
        ids = tuple(one.id for one in made)
        made += engine.answer(dataclasses.replace(question, answer=ids, count=1)).tokens
    assert [(one.id, one.u) for one in made] == [(one.id, one.u) for one in whole]
    assert text_of(whole).startswith("A small")


def test_a_model_without_a_template_is_refused() -> None:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    with pytest.raises(UserError, match=r"nano has no chat template.*--instruct --from nano"):
        engine.answer(ChatQuestion(Request(), TALK[:1]))


def test_the_command(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    assert main(("chat", "Who", "--model", str(copy), "--temperature", "0", "--tokens", "--raw")) == 0
    out = capsys.readouterr().out
    assert out.startswith("Who\n") and "A small model." in out and "ln raw p" in out and "sum of −log2 raw p" in out
    assert main(("chat", "Who", "Who", "--model", str(copy), "--temperature", "0", "--json")) == 0
    decoder, text = json.JSONDecoder(), capsys.readouterr().out
    first, end = decoder.raw_decode(text)
    second, _ = decoder.raw_decode(text[end:].lstrip())
    assert first["answer"] == "A small model." and first["ended"] and first["fed_text"] == "Who\n"
    assert all(one["bits"] >= 0 for one in first["tokens"]) and second["seed"] == 2
    assert main(("chat", "Who")) == 2
    assert "no chat template" in capsys.readouterr().err


def test_the_command_says_that_a_typed_special_token_is_text(capsys: pytest.CaptureFixture[str], copy: Path) -> None:
    words = ("chat", "Who <|endoftext|>", "--model", str(copy), "--max-tokens", "1")
    assert main(words) == 0
    assert "<|endoftext|> in a message is fed as plain text, not as the special token" in capsys.readouterr().err
    assert main((*words, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["typed_special"] == ["<|endoftext|>"]
    assert main(("chat", "Who", *words[2:])) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize("locale", ["strict", "surrogateescape"])  # of en_US.UTF-8, of C.UTF-8
@pytest.mark.parametrize(("data", "says"), [(b"\xff\xfeWho\n", "not UTF-8"), (b"x" * (LONGEST + 2), "a line of over")])
def test_standard_input_that_is_no_message_is_one_line(
    data: bytes, says: str, locale: str, capsys: pytest.CaptureFixture[str], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors=locale))
    assert main(("chat", "--model", str(copy))) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_ctrl_c_stops_the_answer_and_the_next_message_is_answered(
    capsys: pytest.CaptureFixture[str], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer: Callable[..., Any] = PipelineEngine.answer
    calls = 0

    def interrupted(self: PipelineEngine, question: Any, *more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return answer(self, question, *more)

    monkeypatch.setattr(PipelineEngine, "answer", interrupted)
    assert main(("chat", "Who", "Who", "--model", str(copy), "--temperature", "0")) == 0
    out = capsys.readouterr().out
    assert out.count("sum of −log2 raw p") == 2 and out.count("stopped") == 1
