"""Pairs and prompts as tokens: the split and the order follow from the seed, and nothing is both trained on and held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_llm.common.errors import UserError
from tui_llm.llm.data import answer_rows, preference_pairs, prompts
from tui_llm.llm.data.answer_rows import AnswerEncoder, AnswerRows, RowOrder, TokenRows
from tui_llm.llm.data.preference_pairs import PreferencePair
from tui_llm.llm.tokens.tokenizer import byte_level

ENCODER = AnswerEncoder(byte_level(), None, 64, "model", "file")


def rows_of(groups: list[int]) -> AnswerRows:
    pairs = [(at, PreferencePair(f"prompt {group}", "good", "bad")) for at, group in enumerate(groups, 1)]
    return ENCODER.pairs(pairs)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60).filter(lambda g: len(set(g)) > 1),
       st.floats(0.01, 0.9), st.integers(0, 2**32 - 1))  # fmt: skip
def test_equal_pairs_are_on_one_side_of_the_split(groups: list[int], fraction: float, seed: int) -> None:
    rows = rows_of(groups)
    train, held_out = rows.split(fraction, seed)
    assert sorted([*train, *held_out]) == list(range(len(groups))) and len(train) and len(held_out)
    assert {groups[at] for at in train}.isdisjoint(groups[at] for at in held_out)
    again = rows_of(groups).split(fraction, seed)
    assert np.array_equal(again[0], train) and np.array_equal(again[1], held_out)


def test_a_pair_ranked_twice_in_opposite_ways_is_one_pair_for_the_split() -> None:
    rows = ENCODER.pairs([(1, PreferencePair("a", "b", "c")), (2, PreferencePair("a", "c", "b"))])
    assert rows.groups.tolist() == [0, 0]
    with pytest.raises(UserError, match="2 different rows"):
        rows.split(0.5, 1)


@given(st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_an_epoch_has_every_row_once_and_place_k_needs_no_state(count: int, seed: int) -> None:
    rows = np.arange(count) * 3
    order = RowOrder(rows, seed)
    places = [order.row(place) for place in range(3 * count)]
    for epoch in range(3):
        assert sorted(places[epoch * count : (epoch + 1) * count]) == rows.tolist()
    assert [RowOrder(rows, seed).row(place) for place in reversed(range(3 * count))] == places[::-1]


def test_rows_are_read_back_and_damage_is_noticed(tmp_path: Path) -> None:
    rows, path = rows_of([1, 2, 3]), tmp_path / "answers.safetensors"
    rows.save(path)
    found = answer_rows.load(path, 257)
    assert [found.prompts.row(at) for at in range(3)] == [byte_level().encode(f"prompt {n}") for n in (1, 2, 3)]
    assert (
        found.chosen.row(2) == byte_level().encode("good") and found.lines.tolist() == [1, 2, 3] and found.longest == 12
    )
    with pytest.raises(UserError, match="is damaged"):
        answer_rows.load(path, 30)  # ids beyond the vocabulary
    AnswerRows(
        TokenRows(rows.prompts.ids, rows.prompts.ends + 1), rows.chosen, rows.rejected, rows.lines, rows.groups
    ).save(path)
    with pytest.raises(UserError, match="is damaged"):
        answer_rows.load(path, 257)


def test_prompts_are_lines_or_records(tmp_path: Path) -> None:
    text, records = tmp_path / "a.txt", tmp_path / "a.jsonl"
    text.write_bytes("\ufeffOne\r\n\r\n two \r\nthree".encode())
    assert [(one.content, one.line) for one in prompts.read(text)] == [("One", 1), (" two ", 3), ("three", 4)]
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    records.write_text(
        json.dumps({"prompt": "a"}) + "\n" + json.dumps({"messages": chat}) + "\n" + json.dumps("b") + "\n"
    )
    found = list(prompts.read(records))
    assert [one.line for one in found] == [1, 2, 3] and (found[0].content, found[2].content) == ("a", "b")
    assert not isinstance(found[1].content, str) and [m.text for m in found[1].content] == ["Hi"]
    with pytest.raises(UserError, match=r"file line 2 has chat messages, and model has no chat template"):
        ENCODER.prompts(found, 4)
    records.write_text('{"prompt": "a"}\n{"answer": "b"}\n')
    with pytest.raises(UserError, match=r"line 2: this is not a prompt"):
        list(prompts.read(records))


def test_a_prompts_text_beside_whole_conversations_is_read(tmp_path: Path) -> None:
    said = {"role": "user", "content": "Hi"}
    row = {"prompt": "Hi", "chosen": [said, {"role": "assistant", "content": "a"}], "rejected": [said, {"role": "assistant", "content": "b"}]}  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    (pair,) = preference_pairs.read(path)
    assert (pair.chosen, pair.rejected) == ("a", "b") and pair.needs_template
