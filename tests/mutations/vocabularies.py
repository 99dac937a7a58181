"""Mutated vocabularies (vocab.json with merges.txt, tokenizer.json, .tiktoken), each used and added under a name."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.mutations import changes, forked
from tests.mutations.case import Case
from tests.mutations.corpora import _main
from tests.mutations.models import change_vocab

TEXT = "The cat sat on the mat, café 12  x"
MERGES = (
    "", "junk", "a b c\n", "a\n", " a\n", "a \n", "\0 \0\n", "#version: 0.2\nĠ t\nĠ t\n", "Ġ t\r\nh e\r\n", "日 本\n", "\x1b[31m a\n", "zz qq\n", "a " * 100_000, "#version\n" * 5,
    "a b\n" * 300_000, "x" * 5_000_000 + " y\n", "\u2028 a\n", "t Ġ\n", "\ufeffĠ t\n",
)  # fmt: skip
TIKTOKEN = (
    b"", b"IQ== 0\n", b"IQ== x\n", b"IQ== 1e9\n", b"IQ== " + b"9" * 5000 + b"\n", b"!!!! 0\n", b"IQ==\n", b"\xff\xfe 0\n", b"YQ== 0\n" * 1000, b"A" * 400_000 + b" 256\n",
)  # fmt: skip
TOKENIZERS = (
    '{"model":{}}', '{"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}', '{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":4294967295,"X":1},"unk_token":"a"}}',
    '{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":400000000,"X":1},"unk_token":"a"}}', '{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"q"}}',
    '{"version":"1.0","added_tokens":[{"id":-1,"content":"x"}],"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}', '{"version":"1.0","added_tokens":7,"model":{"type":"BPE","vocab":{},"merges":[]}}',
    '{"version":"1.0","model":{"type":"Unigram","unk_id":4000000000,"vocab":[["a",0.0]]}}', '{"version":"1.0","model":{"type":"Unigram","unk_id":0,"vocab":[["a",1e999]]}}', '{"version":"1.0","model":{"type":"WordLevel","vocab":{},"unk_token":"a"}}',
    '{"version":"1.0","pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated","invert":false},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}',
    '{"version":"1.0","normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}',
    '{"version":"1.0","padding":{"strategy":{"Fixed":4000000000},"direction":"Right","pad_id":0,"pad_type_id":0,"pad_token":"a"},"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}',
)  # fmt: skip


def make_bases(top: Path) -> None:
    """Creates `vocabulary/` (vocab.json, merges.txt), `library/` (tokenizer.json) and `ranks/` (a .tiktoken file)."""
    from tui_llm.llm.tokens import vocabulary_files, vocabulary_folder
    from tui_llm.llm.tokens.tokenizer import as_written
    from tui_llm.llm.tokens.vocabulary_folder import load_folder

    plain = load_folder(top / "gpt2")
    vocabulary_folder.save_folder(plain, top / "vocabulary")
    (top / "vocabulary" / "tokenizer_config.json").unlink()
    assert plain.merges is not None
    tokens = vocabulary_files.tokens_of(plain.merges)
    (top / "ranks").mkdir(exist_ok=True)
    (top / "ranks" / "made.tiktoken").write_bytes(vocabulary_files.tiktoken_lines(tokens))
    (top / "library").mkdir(exist_ok=True)
    raw: dict[str, Any] = {
        "version": "1.0", "added_tokens": [{"id": len(tokens), "content": "<|endoftext|>", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}],
        "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}, "post_processor": None, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {as_written(token): id for id, token in enumerate(tokens)}, "merges": [[as_written(a), as_written(b)] for a, b in plain.merges]},
    }  # fmt: skip
    (top / "library" / "tokenizer.json").write_text(json.dumps(raw))


def make(draw: random.Random, bases: Path, work: Path) -> Case:
    base = draw.choice(("vocabulary", "vocabulary", "library", "ranks"))
    folder = work / base
    shutil.copytree(bases / base, folder)
    try:
        what = _change(draw, base, folder)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:  # damaged by an earlier mutation
        what = f"nothing ({type(error).__name__})"
    use = base != "ranks" and draw.random() < 0.5
    file = {"vocabulary": "merges.txt", "library": "tokenizer.json", "ranks": "made.tiktoken"}[base]
    give = folder if draw.random() < 0.3 and base != "ranks" else folder / file
    words = (
        ("tokens", TEXT, "--tokenizer", str(folder), "--json")
        if use
        else ("vocabulary", "add", str(give), "--name", "mutated", "--json")
    )
    check = _checker(folder)
    return Case(f"{base} {what} {'used' if use else 'added'}", words, check=check if use else _added(check))


def _added(check: Callable[[Any], str]) -> Callable[[Any], str]:
    """Returns a check of the tokens that the vocabulary gives that was added."""

    def checked(answer: Any) -> str:
        ending = forked.run(lambda: _main(["tokens", TEXT, "--tokenizer", answer["name"], "--json"]))
        if ending.code != 0:
            return f"it was added, but can't be used: {ending.err[-300:]}"
        return check(json.loads(ending.out))

    return checked


def _checker(folder: Path) -> Callable[[Any], str]:
    """Returns a check that the bytes of all tokens together are those of the text.

    For a tokenizer.json, which may drop what it has no token for, it checks that the ids are those of the `tokenizers`
    library.
    """

    def check(answer: Any) -> str:
        path = folder / "tokenizer.json"
        if path.is_file() and not (folder / "merges.txt").exists():
            import tokenizers

            try:
                theirs = tokenizers.Tokenizer.from_file(str(path))
            except Exception:  # it refuses fields that have no effect here
                return ""
            theirs.no_truncation()
            theirs.no_padding()
            ids = theirs.encode(TEXT, add_special_tokens=False).ids
            ours = [token["id"] for token in answer["tokens"]]
            return "" if ours == ids else f"ids {ours}, the library has {ids}"
        made = b"".join(bytes.fromhex(token["bytes"]) for token in answer["tokens"])
        return "" if made == TEXT.encode() else f"the tokens give back {made!r}"

    return check


def _change_rules(draw: random.Random, raw: dict[str, Any], path: Path) -> str:
    """Other rules, which this package knows, leaves to the library, or refuses."""
    key = draw.choice(("added_tokens", "pre_tokenizer", "post_processor", "normalizer", "decoder", "model"))
    cut = {
        "type": "ByteLevel",
        "add_prefix_space": draw.random() < 0.3,
        "trim_offsets": True,
        "use_regex": draw.random() < 0.7,
    }
    digits = {"type": "Digits", "individual_digits": draw.random() < 0.5}
    split = {"type": "Split", "pattern": {"Regex": draw.choice((r"\s+", r"\p{N}", "(", "x"))}, "invert": False,
             "behavior": draw.choice(("Isolated", "Removed", "Contiguous", "none"))}  # fmt: skip
    if key == "added_tokens":
        flags = {name: draw.random() < 0.3 for name in ("special", "normalized", "lstrip", "rstrip", "single_word")}
        size = len(raw["model"]["vocab"]) + len(raw["added_tokens"])
        texts = ("cat", " ", "a", "", "mat,", "é", "\x1b[31m", "<|endoftext|>", "at")
        raw[key] += [{"id": draw.choice((size, size, size + 1, 0)), "content": draw.choice(texts), **flags}]
    elif key == "pre_tokenizer":
        steps = [draw.choice((digits, split, cut, {}, {"type": "x"})) for _ in range(draw.randrange(3))]
        raw[key] = draw.choice(
            (cut, None, {"type": "Sequence", "pretokenizers": [*steps, cut]}, {"type": "Whitespace"})
        )
    elif key == "model":
        name = draw.choice(
            ("dropout", "unk_token", "continuing_subword_prefix", "byte_fallback", "ignore_merges", "fuse_unk")
        )
        raw[key][name] = draw.choice((True, False, None, 0.5, "a", 0))
    else:
        raw[key] = draw.choice((None, {}, [], {"type": "ByteLevel"}, {"type": "Lowercase"}, {"type": "Sequence"}))
    path.write_text(json.dumps(raw))
    return f"rules {key}"


def _change(draw: random.Random, base: str, folder: Path) -> str:
    path = draw.choice(sorted(folder.iterdir()))
    act = draw.choice(("bytes", "bytes", "json", "json", "ids", "ids", "ids", "text", "kind", "order"))
    if act == "kind":
        return f"{path.name} is {changes.other_kind(draw, path)}"
    if act == "bytes" or (base == "ranks" and act != "text"):
        if draw.random() < 0.3 and path.suffix != ".json":
            lines = path.read_bytes().splitlines(keepends=True)
            at = draw.randrange(len(lines))
            lines[at : at + 1] = draw.choice(
                ([], [lines[at], lines[at]], [lines[0], lines[at]], [lines[at][:-1]], [b"\n", lines[at]])
            )
            path.write_bytes(b"".join(lines))
            return f"{path.name} lines"
        changes.change_bytes(draw, path)
        return f"{path.name} bytes"
    if act == "text":
        texts = (
            TIKTOKEN
            if base == "ranks"
            else tuple(
                text.encode("utf-8", "surrogatepass")
                for text in (MERGES if path.suffix == ".txt" else (*changes.TEXTS, *TOKENIZERS))
            )
        )
        path.write_bytes(draw.choice(texts))
        return f"{path.name} is another text"
    if path.suffix == ".txt":
        lines = path.read_text().splitlines()
        draw.shuffle(lines)
        path.write_text("\n".join(lines))
        return "merges shuffled"
    raw = json.loads(path.read_text())
    if base == "library" and draw.random() < 0.4:
        return _change_rules(draw, raw, path)
    if act == "ids":
        vocab = raw["model"]["vocab"] if base == "library" else raw
        what = change_vocab(draw, vocab)
        if base == "library" and draw.random() < 0.2:
            raw["added_tokens"][0]["id"] = draw.choice((*changes.ABSURD, 4 * 10**8))
            what += ", added id"
        path.write_text(json.dumps(raw))
        return f"ids {what}"
    changes.change_json(draw, path, draw.choice((1, 2)))
    return f"{path.name} json"
