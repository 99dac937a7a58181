"""Corpora of records: what is read equals what Python's json and csv and pyarrow read; hostile files are refused in one line."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpus, formats, packed, records, texts
from tui_llm.llm.data.formats import TextFormat
from tui_llm.llm.hub import hub
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import byte_level

BYTE = byte_level()
DOCUMENTS = ["Once upon a time,\nthere was a girl.", 'She said: "hi", twice.', "é 日本 😀\t<b>", "", "  the end"]


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def read(path: Path, format: str = "auto", field: str = "") -> list[str]:
    """The documents of a file, empty ones included."""
    *found, last = texts.read_text(path, how=TextFormat(format, field)).split(END_OF_TEXT)
    assert last == ""
    return found


def lines(documents: list[str], field: str = "text", **more: Any) -> str:
    return "".join(json.dumps({"id": n, field: text, **more}) + "\n" for n, text in enumerate(documents))


def as_csv(documents: list[str], field: str = "text", **how: Any) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", field], **how)
    writer.writeheader()
    writer.writerows({"id": n, field: text} for n, text in enumerate(documents))
    return out.getvalue()


def refused(path: Path, format: str = "auto", field: str = "") -> str:
    with pytest.raises(UserError) as told:
        read(path, format, field)
    assert "\n" not in str(told.value)
    return str(told.value)


# ── what is read ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines(DOCUMENTS)),
        ("a.ndjson", lines(DOCUMENTS).replace("\n", "\r\n\r\n")),
        ("a.JSONL", "\ufeff" + lines(DOCUMENTS)),
        ("a.json", json.dumps([{"text": text} for text in DOCUMENTS])),
        ("a.json", json.dumps([{"id": [n, {}], "text": text} for n, text in enumerate(DOCUMENTS)], indent=2, ensure_ascii=False)),
        ("a.json", json.dumps(DOCUMENTS)),
        ("a.json", lines(DOCUMENTS)),
        ("a.csv", as_csv(DOCUMENTS)),
        ("a.csv", as_csv(DOCUMENTS, quoting=csv.QUOTE_ALL, lineterminator="\n")),
        ("a.tsv", as_csv(DOCUMENTS, delimiter="\t")),
    ],
)  # fmt: skip
def test_each_record_is_a_document(name: str, content: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / name, content)) == DOCUMENTS
    assert read(write(tmp_path / f"{name}.gz", gzip.compress(content.encode()))) == DOCUMENTS
    half = len(content.encode()) // 2  # several members, as `cat a.gz b.gz` makes
    parts = gzip.compress(content.encode()[:half]) + gzip.compress(content.encode()[half:])
    assert read(write(tmp_path / f"{name}.gz", parts)) == DOCUMENTS


def test_one_object_is_one_document(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.json", json.dumps({"text": "one", "id": 1}, indent=2))) == ["one"]
    assert read(write(tmp_path / "a.jsonl", json.dumps("a string"))) == ["a string"]
    assert texts.read_text(write(tmp_path / "a.json", "[]")) == "" == texts.read_text(write(tmp_path / "a.jsonl", ""))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(st.text(st.characters(exclude_characters="\r\0")), min_size=1, max_size=5),
    block=st.integers(1, 40),
)
def test_any_text_is_read_as_json_and_csv_read_it(documents: list[str], block: int, tmp_path: Path) -> None:
    documents = [text for text in documents if END_OF_TEXT not in text] or ["x"]
    wanted = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in documents]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_READ", block)
        patch.setattr(texts, "BLOCK", block)
        assert read(write(tmp_path / "a.jsonl", lines(documents))) == wanted
        array = json.dumps([{"t": text, "n": [1, {"text": "no"}]} for text in documents], indent=1)
        assert read(write(tmp_path / "a.json", array), field="t") == wanted
        assert read(write(tmp_path / "a.csv", as_csv(wanted))) == wanted


def test_parquet_columns_are_read_as_pyarrow_reads_them(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    many = [f"{text} {n}" for n in range(300) for text in DOCUMENTS]
    chat = [[{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}] for text in many]
    table = pyarrow.table({"id": range(len(many)), "text": many, "messages": chat, "n": [None] * len(many)})
    for at, how in enumerate(({}, {"compression": "zstd", "row_group_size": 100}, {"use_dictionary": False})):
        path = tmp_path / f"{at}.parquet"
        parquet.write_table(table, path, **how)
        assert read(path) == parquet.read_table(path)["text"].to_pylist() == many
        seen: list[bytes] = []
        assert list(records.texts(path, "parquet", "text", seen.append)) == many
        assert b"".join(seen) == path.read_bytes()
        assert read(path, field="messages") == [f"{text.strip()}\nyes" for text in many]
        assert "row 1: the field 'n' is null" in refused(path, field="n")
        assert "no field 'nn'; it has: id, text, messages, n" in refused(path, field="nn")
        data = path.read_bytes()
        for cut in (data[:-9], data[: len(data) // 2], data[:4], b""):
            assert "can't be read as Parquet after row" in refused(write(tmp_path / "cut.parquet", cut))
        for begin in range(0, len(data), len(data) // 40):  # damage can go unnoticed, but never ends otherwise
            with suppress(UserError):
                read(write(tmp_path / "spoiled.parquet", data[:begin] + b"\x81" * 40 + data[begin + 40 :]))
    assert "looks" not in refused(write(tmp_path / "p.txt", data)) and "--format parquet" in refused(tmp_path / "p.txt")
    assert read(tmp_path / "p.txt", "parquet") == many


@pytest.mark.parametrize(("module", "name"), [("pyarrow", "a.parquet"), ("zstd", "a.jsonl.zst")])
def test_what_is_not_installed_is_said(module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / name, b"\x28\xb5\x2f\xfd" + b"PAR1")
    real = importlib.import_module

    def missing(wanted: str, *more: Any) -> Any:
        if wanted.endswith("zstd"):
            raise ImportError(wanted)
        return real(wanted, *more)

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install 'tui-llm[corpora]'" in refused(path)


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    pytest.skip("no zstd module")


def test_zstd_is_read(tmp_path: Path) -> None:
    zstd = _zstd()
    data = lines(DOCUMENTS).encode()
    for packed_ in (zstd.compress(data), zstd.compress(data[:40]) + zstd.compress(data[40:])):
        assert read(write(tmp_path / "a.jsonl.zst", packed_)) == DOCUMENTS
        assert read(write(tmp_path / "a.jsonl", packed_)) == DOCUMENTS  # by its content, whatever its name
    plain = "".join(f"line {n}\n" for n in range(9999)).encode()
    assert texts.read_text(write(tmp_path / "a.txt.zst", zstd.compress(plain))).encode() == plain
    cut = refused(write(tmp_path / "cut.jsonl.zst", zstd.compress(data * 9999)[:-20]))
    assert "cut short or damaged: its zstd data" in cut and "(after line " in cut


# ── the field ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_field_is_text_else_messages_else_the_given_one(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": " How? "}, {"role": "assistant", "content": "So."}]
    both = write(tmp_path / "both.jsonl", json.dumps({"messages": chat, "text": "plain", "body": "other"}))
    assert read(both) == ["plain"] and read(both, field="body") == ["other"]
    assert read(both, field="messages") == ["How?\nSo."]
    assert read(write(tmp_path / "chat.jsonl", json.dumps({"messages": chat}))) == ["How?\nSo."]
    # chosen by the first record, for all of them
    mixed = write(tmp_path / "mixed.jsonl", json.dumps({"text": "a"}) + "\n" + json.dumps({"messages": chat}))
    assert "mixed.jsonl line 2 has no field 'text'; it has: messages; choose one with --field NAME" in refused(mixed)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"a": 1, "b": "x"}', "line 2 has no field text or messages; it has: a, b; choose one with --field NAME"),
        ("{}", "line 2 has no field text or messages; it is empty"),
        ('{"text": 1}', "line 2: the field 'text' is a number, not text"),
        ('{"text": null}', "line 2: the field 'text' is null"),
        ('{"text": {"text": "x"}}', "line 2: the field 'text' is an object"),
        ('{"messages": "raw"}', "line 2: the field 'messages' is a string"),
        ('{"messages": [{"role": "user"}]}', "line 2: message 1 of 'messages' is not"),
        ('{"messages": [{"content": [{"type": "text"}]}]}', "line 2: message 1 of 'messages' is not"),
        ("[1]", "line 2 is a list, not a record"),
        ("12", "line 2 is a number, not a record"),
        ('{"text": "x"', "line 2 is not valid JSON"),
        ("not json", "line 2 is not valid JSON (Expecting value, column 1)"),
        ("1" * 9999, "line 2 is not valid JSON"),
        ("[" * 200_000, "line 2 is nested too deep"),
        ('{"text":' + '{"a":' * 200_000, "line 2 is nested too deep"),
    ],
)
def test_wrong_lines_are_named(line: str, why: str, tmp_path: Path) -> None:
    assert why in refused(write(tmp_path / "a.jsonl", f"\n{line}\n"))
    if not line.startswith('{"text": "x"'):  # in a .json file, that is cut short
        assert why.split(" (")[0] in refused(write(tmp_path / "a.json", f"\n{line}\n")) or line[:1] == "["


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}', "line 2 is not UTF-8 text (byte 10 of the line)"),
        ("a.json", b'[{"text": "x"},\n{"text": "\xff"}]', "line 2 is not UTF-8 text"),
        ("a.csv", b"text\nx\n\xff\n", "line 3 is not UTF-8 text (byte 0 of the line)"),
        ("a.json", b'[{"text": "x"},\n{"text": "y"}', "a.json is cut short: its array does not end (line 2)"),
        ("a.json", b'[{"text": "x"},\n{"text": "y', "line 2 is not valid JSON (Unterminated string); it is cut short"),
        ("a.json", b'[{"text": "x"}\n{"text": "y"}]', "line 2 is not valid JSON (a comma is missing between two records)"),
        ("a.json", b'[{"text": "x"},\n]', "line 2 is not valid JSON"),
        ("a.json", b'[{"text": "x"}]\n1', "line 2 is not valid JSON (more text after the array)"),
        ("a.json", b'[{"text": "x"},\n{"text" "y"}' + b" " * 99 + b"]", "line 2 is not valid JSON (Expecting ':' delimiter); mend it"),
        ("a.csv", b'id,text\n1,"a\n', "line 2 is not valid CSV (unexpected end of data)"),
        ("a.csv", b"id,text\n1,a\n2\n", "line 3 has 1 of the first line's 2 columns"),
        ("a.csv", b"id,text\n1,a,b\n", "line 2 has 3 of the first line's 2 columns"),
        ("a.csv", b"id,body\n1,a\n", "line 2 has no field text; it has: id, body; choose one with --field NAME"),
        ("a.csv", b"text,text\n1,a\n", "line 1: two columns are called 'text'"),
        ("a.jsonl.gz", b'{"text": "x"}', "is not gzip data, although its name says so"),
        ("a.zip", b"PK\x03\x04", "is zip data, which is not read here"),
    ],
)  # fmt: skip
def test_wrong_files_are_named(name: str, content: bytes, why: str, tmp_path: Path) -> None:
    assert why in refused(write(tmp_path / name, content))


def test_a_field_can_have_any_name_in_an_error(tmp_path: Path) -> None:
    names = {f"\x1b[31m{n}" + "x" * 999: 1 for n in range(99)}
    assert len(refused(write(tmp_path / "a.jsonl", json.dumps(names)))) < 1000


# ── JSON under another name ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["a.txt", "a", "a.md", "a.txt.gz"])
@pytest.mark.parametrize(
    ("content", "format"),
    [(lines(DOCUMENTS), "jsonl"), (json.dumps([{"text": "x"}], indent=4), "json"), (json.dumps(["a", "b"]), "json"), ('\n {\n "text": "x"}', "jsonl")],
)  # fmt: skip
def test_json_is_not_read_as_text_without_a_word(name: str, content: str, format: str, tmp_path: Path) -> None:
    data = content.encode()
    path = write(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)
    assert f"looks like JSON; read the texts in it with --format {format}" in refused(path)
    assert texts.read_text(path, how=TextFormat("text")) == content
    if not content.startswith("\n"):
        assert read(path, format)


@pytest.mark.parametrize(
    "text",
    [
        "[1] A footnote.",
        "{braces} are used",
        '["quoted" words]',
        "[link](there)",
        "{\n  code();\n}",
        '[{"',
        "[[wiki]]",
        '"a": 1',
    ],
)
def test_text_that_only_begins_like_json_is_text(text: str, tmp_path: Path) -> None:
    assert texts.read_text(write(tmp_path / "a.txt", text)) == text


# ── hostile files ────────────────────────────────────────────────────────────────────────────────────────────────


def test_long_lines_and_records_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST", 1000)
    monkeypatch.setattr(records, "_READ", 100)
    long = json.dumps({"text": "x" * 2000})
    assert "line 2 has more than 1,000 bytes" in refused(write(tmp_path / "a.jsonl", f"\n{long}"))
    assert "line 2 begins a record of more than 1,000" in refused(write(tmp_path / "a.json", f"[\n{long}]"))
    assert "a row has more than 1,000 bytes" in refused(write(tmp_path / "a.csv", 'text\n"' + "x\n" * 2000))
    assert "line 2 has more than 1,000 bytes" in refused(write(tmp_path / "a.csv", "text\n" + "x" * 2000))
    monkeypatch.setattr(records, "_MANY", 10)
    monkeypatch.setattr(records, "MOST_VALUES", 5)
    for name, text in (("a.jsonl", "[1,1,1,1,1,1,1]"), ("a.json", '{"a": [1,1,1,1,1,1,1]}')):
        assert "line 1 has more than 5 values" in refused(write(tmp_path / name, text))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_decompression_bomb_stops_at_the_free_space(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress: Callable[[bytes], bytes] = gzip.compress if kind == "gzip" else _zstd().compress
    bomb = write(tmp_path / "bomb.txt.gz", compress(b"all work and no play\n" * 200_000))
    if kind == "zstd":
        bomb = bomb.rename(tmp_path / "bomb.txt.zst")
    monkeypatch.setattr(packed, "free_bytes", lambda: 1_000_000)
    assert "unpacks to more than the 1,000,000 bytes that are free" in refused(bomb)
    with pytest.raises(UserError, match="unpacks to more than"):
        corpus.load([bomb], BYTE, 0.1, block_size=4)
    monkeypatch.undo()
    with pytest.raises(UserError, match="unpacks to more than 100,000 bytes"):
        texts.read_text(bomb, 100_000)


def test_memory_stays_flat(tmp_path: Path) -> None:
    array = "[" + ",\n".join(json.dumps({"text": "once upon a time " * 60}) for _ in range(10_000)) + "]"  # 10 MB
    for name, content in (
        ("a.json", array),
        ("a.jsonl", array[1:-1].replace("},", "}")),
        ("a.csv", "text\n" + ("once upon a time " * 60 + "\n") * 10_000),
    ):
        path = write(tmp_path / f"{name}.gz", gzip.compress(content.encode(), 1))
        tracemalloc.start()
        count = sum(block.count(END_OF_TEXT) for block in texts.blocks(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 10_000 and peak < 4 << 20, (name, peak)


# ── the corpus ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_corpus_of_records_has_the_ids_of_tiktoken_and_a_separator_after_each(tmp_path: Path) -> None:
    nano = hub.training_tokenizer("nano")
    made = corpus.load([write(tmp_path / "a.jsonl", lines(DOCUMENTS * 20))], nano, 0.1, block_size=4)
    reference = tiktoken.Encoding(
        "reference", pat_str=nano.pattern, mergeable_ranks=nano.encoding._mergeable_ranks, special_tokens={}
    )
    wanted = [i for text in DOCUMENTS * 20 if text for i in [*reference.encode_ordinary(text), nano.end_of_text]]
    assert nano._ids is None  # its ids are tiktoken's ranks
    assert [*made.train.tolist(), *made.validation.tolist()] == wanted
    assert made.bytes_per_token == pytest.approx(sum(len(text.encode()) for text in DOCUMENTS * 20) / len(wanted))


def test_the_cache_knows_format_and_field(tmp_path: Path) -> None:
    content = "".join(json.dumps({"text": "a" * 30, "body": "b" * 30}) + "\n" for _ in range(9))
    path, plain = write(tmp_path / "a.jsonl", content), write(tmp_path / "a.txt", content)
    made = [
        corpus.load([one], BYTE, 0.1, block_size=4, how=how)
        for one, how in (
            (path, TextFormat()),
            (path, TextFormat("auto", "body")),
            (plain, TextFormat("text")),
            (plain, TextFormat("jsonl")),
        )
    ]
    assert [BYTE.decode([int(one.train[0])]) for one in made] == ["a", "b", "{", "a"]
    assert len({one.digest for one in made[:3]}) == 3 and made[3].digest == made[0].digest
    both = corpus.load([path, plain], BYTE, 0.1, block_size=4, how=TextFormat("jsonl"))
    assert len(both.validation) == len(made[0].validation)  # the same text twice is held out once


def test_a_folder_of_shards_is_one_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for n in range(3):
        write(folder / f"{n}.jsonl.gz", gzip.compress(lines([f"text {n}"]).encode()))
    write(folder / "photo.gz", b"no")
    write(folder / "photo.png.gz", b"no")
    assert [path.name for path in texts.files([folder])] == ["0.jsonl.gz", "1.jsonl.gz", "2.jsonl.gz"]
    assert [document for path in texts.files([folder]) for document in read(path)] == ["text 0", "text 1", "text 2"]


def test_names_tell_the_format() -> None:
    for name, wanted in (
        ("a.jsonl.gz", ".jsonl.gz"),
        ("A.JSONL", ".jsonl"),
        ("a.txt", ""),
        ("a.gz", ".txt.gz"),
        ("x.html", ""),
    ):
        assert formats.data_suffixes(name) == wanted
    with pytest.raises(UserError, match="format is 'xml'; give one of auto, text, jsonl"):
        TextFormat("xml")


def test_the_commands_read_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tokenizers")
    documents = [f"the cat number {n} sat on the mat" for n in range(60)]
    as_lines, as_text = (
        write(tmp_path / "a.jsonl", lines(documents, "body")),
        write(tmp_path / "a.txt", END_OF_TEXT.join(documents)),
    )
    results = []
    for place, more in ((as_lines, ["--field", "body"]), (as_text, [])):
        out = tmp_path / f"vocabulary{len(more)}"
        assert main(["vocabulary", "train", str(place), "--size", "280", "--out", str(out), *more]) == 0
        capsys.readouterr()
        assert main(["evaluate", str(place), "--json", *more]) == 0
        found = json.loads(capsys.readouterr().out)
        results.append((found["loss"], found["tokens"], found["bytes"], (out / "vocab.json").read_text()))
    assert results[0] == results[1]
    assert (
        main(["evaluate", str(as_lines)]) == 2
        and "it has: id, body; choose one with --field NAME" in capsys.readouterr().err
    )
    assert main(["evaluate", str(as_lines), "--format", "xml"]) == 2 and "give one of" in capsys.readouterr().err
    assert (
        main(["vocabulary", "train", str(as_lines), "--size", "280", "--out", str(tmp_path / "v"), "--field", "n"]) == 2
    )
    assert not (tmp_path / "v").exists()
