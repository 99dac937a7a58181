"""Parquet files whose rows are long, or repeat one text: how much of them is in memory at a time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tui_llm.common.errors import UserError
from tui_llm.llm.data import parquet, records

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet as library  # noqa: E402


def resident() -> int:
    """Bytes of this process that are in memory now, as Linux counts them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The record batches that are read."""
    seen: list[Any] = []
    made = library.ParquetFile.iter_batches

    def counted(self: Any, *given: Any, **words: Any) -> Any:
        for batch in made(self, *given, **words):
            seen.append(batch)
            yield batch

    monkeypatch.setattr(library.ParquetFile, "iter_batches", counted)
    return seen


def test_few_long_rows_are_read_at_a_time(tmp_path: Path, batches: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bytes that a row group says it has, each on its own."""
    monkeypatch.setattr(parquet, "LONGEST", 1000)
    texts = [f"{at} " + "x" * 400 for at in range(20)] + [f"{at} short" for at in range(200)]
    table = pyarrow.table({"id": range(len(texts)), "text": texts})
    library.write_table(table, tmp_path / "a.parquet", row_group_size=20, use_dictionary=False, compression="none")
    assert list(records.texts(tmp_path / "a.parquet", "parquet", "text")) == texts
    rows = [batch.num_rows for batch in batches]
    assert max(rows[:10]) == 2 and max(rows) == 20 and sum(rows) == len(texts)


def test_a_repeated_text_is_in_memory_once(tmp_path: Path, batches: list[Any]) -> None:
    texts = ["x" * 100_000, None, "y"] * 40
    path = tmp_path / "a.parquet"
    library.write_table(pyarrow.table({"text": texts, "m": [[one] for one in texts]}), path)
    found = parquet.rows(path, lambda _, __: "text")
    assert [record["text"] for _, record in found] == texts == library.read_table(path)["text"].to_pylist()
    assert sum(batch.nbytes for batch in batches) < 1_000_000, "not 40 times 100,000"
    assert [record["m"] for _, record in parquet.rows(path, lambda _, __: "m")] == [[one] for one in texts]


@pytest.mark.parametrize(
    "how",
    [
        {"use_dictionary": False},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY", "large": "DELTA_LENGTH_BYTE_ARRAY"}},
        {"dictionary_pagesize_limit": 100, "data_page_size": 200, "row_group_size": 33},
        {"store_schema": False},
    ],
    ids=str,
)
def test_every_encoding_and_type_gives_the_same_rows(how: dict[str, Any], tmp_path: Path) -> None:
    texts = ["é" * 3, None, "", "x" * 500, "z"] * 50
    data = [text and text.encode() for text in texts]
    table = pyarrow.table(
        {
            "text": texts, "large": pyarrow.array(texts, pyarrow.large_string()), "bytes": data, "a.b": texts,
            "struct": [{"x": text} for text in texts], "i": range(len(texts)), "few": pyarrow.array(texts).dictionary_encode(),
        }
    )  # fmt: skip
    path = tmp_path / "a.parquet"
    library.write_table(table, path, **how)
    for name in table.column_names:
        found = [record[name] for _, record in parquet.rows(path, lambda _, __, name=name: name)]
        assert found == library.read_table(path)[name].to_pylist() == table[name].to_pylist()


def test_a_long_text_is_refused_by_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "LONGEST", 1000)
    library.write_table(pyarrow.table({"text": ["a", "b" * 1001]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"row 2 has more than 1,000 characters"):
        list(records.texts(tmp_path / "a.parquet", "parquet", "text"))


def test_texts_that_begin_alike_are_few_at_a_time(
    tmp_path: Path, batches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DELTA_BYTE_ARRAY stores a common beginning once; pyarrow gives it to each row of a batch."""
    monkeypatch.setattr(parquet, "LONGEST", 300_000)
    texts = [f"{'x' * 100_000}{at}" for at in range(64)]
    path = tmp_path / "a.parquet"
    how: dict[str, Any] = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    library.write_table(pyarrow.table({"text": texts}), path, compression="none", **how)
    assert path.stat().st_size < 150_000
    assert list(records.texts(path, "parquet", "text")) == texts
    assert max(batch.nbytes for batch in batches) < 300_000


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory as Linux counts it")
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_the_texts_of_a_row_group_are_not_kept(tmp_path: Path, dictionary: bool, compression: str) -> None:
    """Also where pyarrow began with a dictionary, which it gives up when it has grown to a megabyte."""
    text, path = pyarrow.array([os.urandom(5000).hex() for _ in range(9000)]), tmp_path / "a.parquet"
    table = pyarrow.table({"text": text})
    library.write_table(table, path, use_dictionary=dictionary, compression=compression)
    assert library.ParquetFile(path).num_row_groups == 1 and text.nbytes > parquet.LONGEST
    most, rows = 0, list[int]()
    before = resident()
    for at, (_, record) in enumerate(parquet.rows(path, lambda _, __: "text")):
        if at % 1000 == 0:
            assert record["text"] == text[at].as_py()
            most, rows = max(most, resident() - before), [*rows, at]
    assert len(rows) == 9 and most < text.nbytes // 2
