"""`tokenizer.json`, against transformers' fast tokenizer: ids and bytes."""

from __future__ import annotations

import json
from pathlib import Path

import foreign
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tui_llm.common.errors import UserError
from tui_llm.llm.adapters.vocabulary import JsonTokenizer

MADE = {
    "byte-level": foreign.byte_level(),
    "sentence-piece": foreign.sentence_piece(),
    "metaspace": foreign.sentence_piece(metaspace=True),
}
OURS = {name: JsonTokenizer(name, made.to_str(), Path("tokenizer.json")) for name, made in MADE.items()}
THEIRS = {name: PreTrainedTokenizerFast(tokenizer_object=made) for name, made in MADE.items()}
TEXTS = st.text() | st.text("the cat  sat▁Ġ<0xE2></s>|_é\n\t🙂", max_size=30)


@pytest.mark.parametrize("name", MADE)
@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_ids_are_those_of_transformers_and_give_the_text_back(name: str, text: str) -> None:
    ours, theirs = OURS[name], THEIRS[name]
    assert ours.encode(text, allow_special=True) == theirs.encode(text, add_special_tokens=False)
    if not any(special in text for special in ours.special_texts):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    wanted = text.encode()
    if name != "byte-level":
        wanted = wanted.replace("▁".encode(), b" ")  # SentencePiece uses one symbol for both
    front = b" " if name != "byte-level" and text else b""
    made = ours.decode_bytes(ours.encode(text))
    assert made in (wanted, front + wanted)
    assert ours.decode_bytes(ours.encode_after(text)) == wanted


def test_a_target_is_encoded_without_an_extra_space() -> None:
    for name in ("sentence-piece", "metaspace"):
        ours = OURS[name]
        assert ours.encode_after(" cat") == ours.encode("cat"), "the space is there already"
        assert ours.decode_bytes(ours.encode_after("cat")) == b"cat"


def test_bytes_specials_and_gaps() -> None:
    ours = OURS["sentence-piece"]
    assert ours.token_bytes(3 + 0xE2) == b"\xe2"
    assert ours.token_bytes(1) == b"<s>"
    assert ours.is_special(1) and not ours.is_special(3)
    assert ours.starts and ours.start == 1, "its template puts <s> in front"
    for id in (-1, ours.size):
        with pytest.raises(KeyError):
            ours.token_bytes(id)
    assert not OURS["byte-level"].starts


def test_a_token_that_the_model_lacks_is_left_out() -> None:
    text = MADE["byte-level"].to_str()
    size = MADE["byte-level"].get_vocab_size()
    short = JsonTokenizer("short", text, Path("tokenizer.json"), rows=size - 1)
    assert short.size == size - 1
    with pytest.raises(UserError, match="is not in the model's vocabulary"):
        short.encode("a  b")
    with pytest.raises(UserError, match="different models"):
        JsonTokenizer("other", text, Path("tokenizer.json"), rows=50)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {"type": "[/]\\u001b"}}', "[" * 100_000])
def test_damaged_files_are_one_line(text: str) -> None:
    with pytest.raises(UserError):
        JsonTokenizer("bad", text, Path("tokenizer.json"))


def steps(*made: dict[str, object], kind: str = "normalizer") -> str:
    raw = json.loads(MADE["sentence-piece"].to_str())
    names = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
    halves = [{"type": "Sequence", names[kind]: list(half)} for half in (made[::2], made[1::2])]
    return json.dumps(raw | {kind: {"type": "Sequence", names[kind]: halves}})


def replace(pattern: str, content: str, of: str = "String") -> dict[str, object]:
    return {"type": "Replace", "pattern": {of: pattern}, "content": content}


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("normalizer", [replace("a", "a")] * 33),
        ("normalizer", [replace("q", "qqqqq")] * 5),
        ("decoder", [replace("q", "qqqqq")] * 5),
        ("normalizer", [replace("q", "")] * 3 + [replace("q" * 2, "q" * 10)] * 5),
        ("normalizer", [replace("q+", "q", "Regex")] * 3 + [replace("q+", "q" * 400, "Regex"), replace("z", "zzz")]),
        ("normalizer", [replace("", "q", "Regex")] * 10),
        ("normalizer", [replace("(?=q)", "q", "Regex")] * 10),
        ("normalizer", [replace("", "q")] * 10),
        ("pre_tokenizer", [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}] * 10),
    ],
)  # fmt: skip
def test_steps_that_could_fill_the_memory_are_refused(kind: str, made: list[dict[str, object]]) -> None:
    """Each step may make the text longer by a factor."""
    with pytest.raises(UserError, match="could fill the memory") as caught:
        JsonTokenizer("x", steps(*made, kind=kind), Path("tokenizer.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "made",
    [
        [replace("q", "z")] * 31 + [replace(" ", "▁")],
        [replace(" {2,}", "▁", "Regex")] * 9 + [replace(" ", "▁")],
        [replace("``", '"'), replace("''", '"'), replace("q", "qqqqq"), replace(" ", "▁")],
    ],
)
def test_usual_steps_are_run(made: list[dict[str, object]]) -> None:
    text = steps(*made)
    ours = JsonTokenizer("x", text, Path("tokenizer.json"))
    assert ours.encode("The cat  sat") == Tokenizer.from_str(text).encode("The cat  sat", add_special_tokens=False).ids
