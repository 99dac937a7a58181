"""The byte-level BPE of a model folder, in any of the layouts of `folder_files`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json, write_text
from tui_llm.llm.tokens.added_tokens import AddedTokens
from tui_llm.llm.tokens.bpe import out_of_order
from tui_llm.llm.tokens.folder_files import FILE, TokenizerFiles, read_files
from tui_llm.llm.tokens.pre_tokenizer import PLAIN, UnknownRule, read_pre_tokenizer
from tui_llm.llm.tokens.rules import Rules
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import BPETokenizer, as_written, byte_characters, from_merges
from tui_llm.llm.tokens.vocab_json import check_ids
from tui_llm.llm.tokens.vocabulary_files import merges_of


def load_folder(folder: Path, name: str | None = None, rows: int | None = None, *, gpt2: bool = True) -> BPETokenizer:
    """The vocabulary of a GPT-2 folder. `rows`: the number of ids that the model knows; added tokens beyond are left
    out; `gpt2` as for `read_files`. Raises `UserError` if it has none, or a broken one; `UnknownRule` if tiktoken can't do what its files say."""
    return from_files(read_files(folder, gpt2=gpt2), name or folder.name, rows)


def from_files(files: TokenizerFiles, name: str, rows: int | None = None) -> BPETokenizer:
    """Raises as `load_folder`."""
    model, where = files.raw["model"], files.where
    _check_model(model, files.raw, where)
    vocab = model["vocab"]
    merges = list(merges_of(model["merges"], files.merges))
    pre_tokenizer = read_pre_tokenizer(files.raw.get("pre_tokenizer"), where)
    fronts = _fronts(files.raw.get("post_processor"), where)
    size = files.size(rows)
    special = {token.text: token.id for token in files.added if token.text == END_OF_TEXT and token.special}
    made = {as_written(left + right) for left, right in merges} | set(byte_characters().values())
    others = {text: id for text, id in vocab.items() if text not in made and text not in special}
    if model.get("ignore_merges") and (never := set(others) - {token.text for token in files.added}):
        raise UnknownRule(f"{where} sets ignore_merges, and no merge makes its token {min(never)[:40]!r}")
    names = [files.special.get(key, END_OF_TEXT if special else None) for key in ("bos_token", "eos_token")]
    plain = len(files.added) == len(special) and not others and not fronts and not files.add_bos
    if plain and pre_tokenizer == PLAIN and names == [next(iter(special), None)] * 2:
        tokenizer = from_merges(name, merges, vocab, special, where, files.merges, size=size)
    else:
        rules = _rules(files, pre_tokenizer, fronts, others, rows)
        tokenizer = from_merges(name, merges, vocab, {}, where, files.merges, rules, size)
        files.check_numbers()
    if not _is_gpt2(merges) and (pair := out_of_order(merges, [bytes([byte]) for byte in byte_characters()])):
        written = " ".join(map(as_written, pair))
        raise UnknownRule(f"{files.merges} has the merge {written[:60]!r} out of order, which tiktoken can't do")
    return tokenizer


def _is_gpt2(merges: list[tuple[bytes, bytes]]) -> bool:
    """Whether they are GPT-2's own, which are in order: to check that takes a third of a second."""
    tokens = (
        hashlib.sha256(b"\0".join(left + b" " + right for left, right in merges)) if len(merges) == 50_000 else None
    )
    return tokens is not None and tokens.hexdigest() == _GPT2_MERGES


_GPT2_MERGES = "4c8f25088f6d1cf87acd7708acf67c83df46eb0a0c34aba0af6868c4497bb7dd"


def _rules(
    files: TokenizerFiles, pre_tokenizer: Any, fronts: list[str], others: dict[str, int], rows: int | None
) -> Rules:
    """`fronts`: the tokens in front of a text; `others`: the tokens of the vocabulary that no merge makes."""
    known = {token.text: token.id for token in files.added if rows is None or token.id < rows}
    front = known.get(fronts[0]) if fronts else None
    begin = front if front is not None else known.get(files.special.get("bos_token", ""))
    end = known.get(files.special.get("eos_token", ""), known.get(END_OF_TEXT))
    alphabet = {character: byte for byte, character in byte_characters().items()}
    texts = {id: _bytes_of(text, alphabet) for text, id in others.items()}
    texts |= {token.id: token.text.encode("utf-8", "replace") for token in files.added}
    return Rules(
        AddedTokens(files.added),
        pre_tokenizer,
        files.raw["pre_tokenizer"],
        texts,
        end if begin is None else begin,
        begin is not None and (front is not None or files.add_bos),
        frozenset() if end is None else frozenset({end}),
        files.raw.get("post_processor"),
        files.special,
    )


def _bytes_of(text: str, alphabet: dict[str, int]) -> bytes:
    if all(character in alphabet for character in text):
        return bytes(alphabet[character] for character in text)
    return text.encode("utf-8", "replace")


def _check_model(model: dict[str, Any], raw: dict[str, Any], where: Path) -> None:
    """Raises `UnknownRule` if it is not a byte-level BPE as GPT-2's."""
    vocab, merges = model.get("vocab"), model.get("merges")
    if model.get("type") not in (None, "BPE") or not isinstance(vocab, dict) or not isinstance(merges, list):
        raise UnknownRule(f"{where} has a {str(model.get('type'))[:40]} model, not a byte-pair encoding")
    if not vocab:
        raise UserError(f"{where} is not a vocabulary: it has no tokens")
    check_ids(vocab, where)
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise UnknownRule(f"{where} sets {key} to {str(model[key])[:40]!r}")
    if (normalizer := raw.get("normalizer")) is not None and normalizer != {"type": "Sequence", "normalizers": []}:
        kind = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
        raise UnknownRule(f"{where} has the normalizer {str(kind)[:60]}")
    decoder = raw.get("decoder")
    if decoder is not None and (not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel"):
        kind = decoder.get("type") if isinstance(decoder, dict) else decoder
        raise UnknownRule(f"{where} has the decoder {str(kind)[:60]}")


def _fronts(processor: Any, where: Path) -> list[str]:
    """The special tokens that the post-processor puts in front of a text. Raises `UnknownRule`."""
    if processor is None:
        return []
    kind = processor.get("type") if isinstance(processor, dict) else processor
    inner = processor.get("processors") if kind == "Sequence" else None
    if isinstance(inner, list):
        return [front for one in inner for front in _fronts(one, where)]
    if kind == "ByteLevel":  # it corrects offsets only
        return []
    single = processor.get("single") if kind == "TemplateProcessing" else None
    if not isinstance(single, list):
        raise UnknownRule(f"{where} has the post-processor {str(kind)[:60]}")
    fronts = []
    for part in single:
        token = part.get("SpecialToken") if isinstance(part, dict) else None
        if not isinstance(token, dict):
            break
        fronts.append(str(token.get("id")))
    return fronts


def save_folder(tokenizer: BPETokenizer, folder: Path) -> None:
    """Write `vocab.json`, `merges.txt` and the `tokenizer_config.json` that transformers reads; and `tokenizer.json`,
    if the tokenizer has other rules than GPT-2's. Raises `UserError` if it has no list of merges."""
    if tokenizer.merges is None:
        raise UserError(f"the vocabulary {tokenizer.name} has no list of merges to write")
    rules, vocab = tokenizer.rules, _vocab(tokenizer)
    pairs = [[as_written(a), as_written(b)] for a, b in tokenizer.merges]
    write_text(folder / "vocab.json", json.dumps(vocab, ensure_ascii=False))
    write_text(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs))
    if rules is None:
        special = END_OF_TEXT if tokenizer.end_of_text is not None else None
        write_json(
            folder / "tokenizer_config.json",
            {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "add_bos_token": False,
             "bos_token": special, "eos_token": special, "unk_token": special, "clean_up_tokenization_spaces": False},
        )  # fmt: skip
        return
    added = [token.entry() for token in rules.added.tokens if token.id < tokenizer.size]
    raw = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": rules.raw_pre_tokenizer, "post_processor": rules.post_processor,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": pairs},
    }  # fmt: skip
    write_text(folder / FILE, json.dumps(raw, ensure_ascii=False))
    texts = {token["content"] for token in added}
    named = {key: text for key, text in rules.special.items() if text in texts and not key.startswith("extra ")}
    # This class obeys tokenizer.json; GPT2Tokenizer of transformers 5 replaces its pre-tokenizer.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", config | {"add_bos_token": rules.begins} | named)


def _vocab(tokenizer: BPETokenizer) -> dict[str, int]:
    """Token as written → id, added tokens included."""
    added = () if tokenizer.rules is None else tokenizer.rules.added.tokens
    vocab = {token.text: token.id for token in added if token.id < tokenizer.size}
    known = set(vocab.values())
    for id in range(tokenizer.size):
        if id in known:
            continue
        try:
            token = tokenizer.token_bytes(id)
        except KeyError:
            continue
        vocab.setdefault(token.decode() if tokenizer.is_special(id) else as_written(token), id)
    return dict(sorted(vocab.items(), key=lambda item: item[1]))
