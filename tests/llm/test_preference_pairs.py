"""Files of preference pairs: what is read, which line is wrong and why, and that a written pair is whole on disk."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import hostile
from tests.faults import Plan
from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.facts.chat import ChatMessage
from tui_llm.llm.data.preference_pairs import PreferencePair, append, as_json, pair_of, read, rows

ROW = {"prompt": "Once", "chosen": " upon a time", "rejected": " more"}
USER, YES, NO = ({"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Yes"), ("assistant", "No")))  # fmt: skip
CHAT = PreferencePair((ChatMessage("user", "Hi"),), "Yes", "No")


@pytest.mark.parametrize("start", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\n\r\n"])
def test_byte_order_mark_and_line_endings_change_nothing(tmp_path: Path, start: bytes, end: bytes) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(start + end.join([json.dumps(ROW).encode()] * 2))
    assert read(path) == (PreferencePair("Once", " upon a time", " more"),) * 2


def test_one_hundred_thousand_rows(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    line = json.dumps(ROW) + "\n"
    path.write_text(line * 100_000)
    with path.open("a") as file:
        file.write('{"prompt": "x", "chosen": "y"}\n')
    found = 0
    with pytest.raises(UserError, match=r"line 100001: there is no field 'rejected'"):
        for found, _ in rows(path):  # noqa: B007
            pass
    assert found == 100_000


@pytest.mark.parametrize("row", [
    {"prompt": [USER], "chosen": [YES], "rejected": [NO]},  # TRL's conversational format, explicit prompt
    {"chosen": [USER, YES], "rejected": [USER, NO]},  # and implicit prompt
    {"messages": [USER], "chosen": "Yes", "rejected": "No"},
    {"prompt": [USER], "chosen": YES, "rejected": NO},
    {"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]},
])  # fmt: skip
def test_rows_of_chat_messages(row: dict[str, Any]) -> None:
    assert pair_of(row) == CHAT
    assert CHAT.needs_template and not pair_of(ROW).needs_template


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([1], "not a pair"),
        ({}, "no field 'chosen'"),
        ({"question": "a", "rejected": "c"}, r"no field 'chosen' \(it has 'question'\)"),
        ({"chosen": "b", "rejected": "c"}, "no field 'prompt'"),
        (ROW | {"prompt": ""}, "prompt is empty"),
        (ROW | {"chosen": ""}, "chosen answer is empty"),
        (ROW | {"rejected": " \n"}, "rejected answer is empty"),
        (ROW | {"chosen": " more"}, "are the same"),
        (ROW | {"chosen": 3}, "'chosen' is neither text"),
        (ROW | {"chosen": []}, "'chosen' is neither text"),
        (ROW | {"prompt": None}, "'prompt' is neither text"),
        (ROW | {"chosen": [YES]}, "give both in one form"),
        ({"prompt": [USER], "chosen": [{"role": "user"}], "rejected": [NO]}, "message 1 of 'chosen'"),
        ({"prompt": [USER | {"role": "tool"}], "chosen": "a", "rejected": "b"}, "role 'tool'"),
        ({"prompt": [USER], "chosen": [YES, USER, YES], "rejected": [NO]}, "it has 3 messages"),
        ({"chosen": [YES], "rejected": [NO]}, "prompt is empty"),
    ],
)
def test_a_wrong_row_is_named_in_one_line(tmp_path: Path, row: Any, said: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n\n{json.dumps(row)}\n")
    with pytest.raises(UserError, match=rf"pairs\.jsonl line 3: .*{said}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no pairs"),
        (b"\n \r\n", "no pairs"),
        (b'{"prompt": "cut', "line 1 is not valid JSON"),
        (b"\xff\xfe{", "line 1 is not UTF-8"),
        (b"[" * 100_000, "line 1 is nested too deep"),
    ],
    ids=["empty", "blank", "cut", "UTF-16", "deep"],
)
def test_what_is_no_row_at_all(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=said):
        read(path)
    with pytest.raises(UserError, match="can't"):
        read(tmp_path)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=4))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, ...]]) -> None:
    pairs = []
    for prompt, chosen, rejected in texts:
        try:
            pairs.append(pair_of({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
        except UserError:
            continue
    pairs.append(CHAT)
    path = tmp_path_factory.mktemp("pairs") / "new" / "pairs.jsonl"
    for pair in pairs:
        append(path, pair)
    assert read(path) == tuple(pairs)


def test_a_pair_is_whole_before_the_next_and_joins_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(ROW))  # no line break at its end
    for number in range(3):
        append(path, PreferencePair("Once", f" {number}", hostile.TEXTS[number + 2]))
        assert path.read_bytes().endswith(b"\n") and len(read(path)) == number + 2


def test_half_a_row_of_a_killed_process_is_removed_and_no_other_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    append(path, pair_of(ROW))
    append(path, CHAT)
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        append(path, CHAT)
        if end < len(whole) - 1:
            assert path.read_bytes() == whole, end
        assert read(path)[:2] == (pair_of(ROW), CHAT)
    for theirs in (b"# notes", b'{"question": "', json.dumps(ROW).encode()):
        path.write_bytes(whole + theirs)
        append(path, CHAT)
        assert path.read_bytes().startswith(whole + theirs + b"\n")


def test_what_can_not_be_written_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.jsonl"
    append(path, pair_of(ROW))
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"can't write"):
        append(path / "inside.jsonl", pair_of(ROW))
    for how in ("full", "error", "sealed"):
        tried = 0
        while True:
            tried += 1
            plan = Plan(tried, how)
            monkeypatch.setattr(storage, "faults", plan)
            try:
                append(path, pair_of(ROW))
            except UserError as error:
                assert path.read_bytes() == before and "\n" not in str(error), plan.calls
            else:
                break  # every call has failed once
        assert tried > 1 or how == "full"
        path.write_bytes(before)
    assert as_json(pair_of(ROW)) == ROW
