"""A GGUF file's vocabulary as the text of a `tokenizer.json`, with the ids that llama.cpp gives.

`tokenizer.ggml.model` names the kind: `gpt2` is byte-level BPE, whose words `tokenizer.ggml.pre` cuts (`gguf_splits`);
`llama` is SentencePiece, which merges the pair whose token has the highest score; `gemma4` is SentencePiece with merges.
Other kinds are refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.llm.adapters.gguf_header import GgufInfo
from tui_llm.llm.adapters.gguf_splits import SPLITS, Split
from tui_llm.llm.adapters.vocabulary import JsonTokenizer
from tui_llm.llm.tokens.vocab_json import MOST_IDS

_KEY = "tokenizer.ggml."
ARRAYS = frozenset(_KEY + name for name in ("tokens", "merges", "scores", "token_type"))
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # token types; others are tokens like any
_SPACE = "▁"
_MOST_MERGES = 1_500_000  # made from scores, by an estimate over twice those of Gemma's vocabulary
_MOST_MERGED = 32 << 20  # characters of them
_LONGEST = 512  # characters of a token: SentencePiece's pairs are quadratic in it

# llama.cpp makes these control tokens, or plain added ones, whatever type the file gives them.
_ENDS = frozenset(
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "[e~[",
    ]
)
_SHOWN = frozenset(["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"])


@dataclass(frozen=True, slots=True)
class GgufVocabulary:
    """json: the text of a `tokenizer.json`. begin: the id of the start token; ends: the ids of those that end a text.
    special: bos_token, eos_token … → their text, for the chat template."""

    json: str
    begin: int | None
    ends: tuple[int, ...]
    special: dict[str, str]

    def tokenizer(self, name: str, where: Path, rows: int, ends: list[int]) -> JsonTokenizer:
        return JsonTokenizer(name, self.json, where, rows, self.begin, [*ends, *self.ends])


def read_vocabulary(info: GgufInfo, where: Path) -> GgufVocabulary:
    """The vocabulary in a header that was read with `ARRAYS`. Raises `UserError` if it is of an unknown kind, or
    damaged."""
    source = _Source(info.settings, where)
    kind = source.text("model")
    kinds = {"gpt2": _byte_level, "llama": _sentence_piece, "gemma4": _gemma4}
    if kind not in kinds:
        raise UserError(
            f"{where}: its vocabulary is of the kind {str(kind)[:60]!r} (tokenizer.ggml.model); gpt2 (byte-level BPE), llama "
            "(SentencePiece) and gemma4 can be read: open the model's Hugging Face folder instead"
        )
    parts = kinds[kind](source)
    begin = source.id("bos", 1 if kind == "llama" else None)
    if parts.pop("starts"):
        if begin is None:
            raise UserError(f"{where}: a start token is to precede each text, and the file names none; get it again")
        parts["post_processor"] = _start_template(source.tokens[begin], begin)
    content = {"version": "1.0", "added_tokens": source.added(), **parts}
    ends = [source.id("eos", 2 if kind == "llama" else None), source.id("eot"), source.id("eom")]
    special = {"bos": begin, "eos": ends[0], "unknown": source.id("unknown"), "padding": source.id("padding")}
    names = {"unknown": "unk", "padding": "pad"}
    return GgufVocabulary(
        json.dumps(content, ensure_ascii=False),
        begin,
        tuple(id for id in ends if id is not None),
        {f"{names.get(key, key)}_token": source.tokens[id] for key, id in special.items() if id is not None},
    )


class _Source:
    """The values of a vocabulary in a GGUF file, checked. Raises `UserError`."""

    def __init__(self, settings: dict[str, Any], where: Path) -> None:
        self.settings, self.where = settings, where
        tokens = self.array("tokens", str)
        if not tokens:
            raise UserError(f"{where} has no vocabulary (tokenizer.ggml.tokens); get it again")
        self.tokens = [token or f"[EMPTY_{id}]" for id, token in enumerate(tokens)]
        if len(tokens) > MOST_IDS or len(set(self.tokens)) != len(tokens):
            raise UserError(f"{where}: its vocabulary has a token twice, or over {MOST_IDS:,} tokens; get it again")
        if (longest := max(map(len, self.tokens))) > _LONGEST:
            raise UserError(f"{where}: a token has {longest:,} characters; {_LONGEST} at most are read")
        self.types = self.array("token_type", int)
        self.scores = self.array("scores", float, int)
        if not all(map(math.isfinite, self.scores)):
            raise UserError(f"{where}: {_KEY}scores has a value that is not finite; get it again")
        for name, values in (("token_type", self.types), ("scores", self.scores)):
            if values and len(values) < len(tokens):
                raise UserError(f"{where}: {_KEY}{name} has {len(values):,} values for {len(tokens):,} tokens")

    def array(self, name: str, *kinds: type) -> list[Any]:
        values = self.settings.get(_KEY + name)
        if values is None:
            return []
        if not isinstance(values, list) or not all(type(value) in kinds for value in values):
            raise UserError(f"{self.where}: {_KEY}{name} is not a list of the type that it should be; get it again")
        return values

    def text(self, name: str) -> str | None:
        value = self.settings.get(_KEY + name)
        return value if isinstance(value, str) else None

    def flag(self, name: str, default: bool) -> bool:
        value = self.settings.get(_KEY + name, default)
        if not isinstance(value, bool):
            raise UserError(f"{self.where}: {_KEY}{name} is {str(value)[:40]!r}, neither true nor false")
        return value

    def id(self, name: str, default: int | None = None) -> int | None:
        """The id of a special token; None if there is none, or it is out of range."""
        value = self.settings.get(f"{_KEY}{name}_token_id", default)
        return value if type(value) is int and 0 <= value < len(self.tokens) else None

    def merges(self) -> list[list[str]]:
        """The merges as pairs: the first space after the first character separates them."""
        pairs = []
        for merge in self.array("merges", str):
            at = merge.find(" ", 1)
            if at < 0:
                raise UserError(f"{self.where}: the merge {merge[:40]!r} is not two tokens with a space between")
            pairs.append([merge[:at], merge[at + 1 :]])
        made = {left + right for left, right in pairs}
        # A part that no merge makes never occurs: such merges are left out, since their parts need be no tokens.
        return [
            pair for pair in pairs if (len(pair[0]) == 1 or pair[0] in made) and (len(pair[1]) == 1 or pair[1] in made)
        ]

    def added(self) -> list[dict[str, Any]]:
        """The tokens that are cut out of a text before anything else."""
        name = str(self.settings.get("general.name", "")).lower()
        phi3 = "phi-3" in name or "phi3" in name  # llama.cpp strips what follows their special tokens
        gemma4 = "<|tool_response>" in self.tokens  # there </s> is a token like any
        found = []
        for id, token in enumerate(self.tokens):
            kind = self.types[id] if self.types else 1
            if token == "</s>" and gemma4:
                kind = 1
            elif token in _ENDS:
                kind = _CONTROL
            elif token in _SHOWN:
                kind = _USER_DEFINED
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED):
                strip = phi3 and token not in ("<unk>", "<s>", "<|endoftext|>")
                found.append(
                    {"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": strip,
                     "normalized": False, "special": kind != _USER_DEFINED}
                )  # fmt: skip
        return found


def _byte_level(source: _Source) -> dict[str, Any]:
    split = _split(source)
    if _KEY + "merges" not in source.settings:
        raise UserError(
            f"{source.where} has no merges (tokenizer.ggml.merges), which its vocabulary needs; get it again"
        )
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in split.patterns
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, byte_level]},
        "decoder": byte_level,
        "model": {"type": "BPE", "ignore_merges": split.whole_words, "vocab": _ids(source), "merges": source.merges()},
        "starts": source.flag("add_bos_token", split.starts),
    }


def _split(source: _Source) -> Split:
    name = source.text("pre") or "default"
    if name not in SPLITS:
        raise UserError(
            f"{source.where}: its vocabulary cuts text by the rule {name[:60]!r} (tokenizer.ggml.pre), which is not known "
            "here, and without it the ids would be wrong; open the model's Hugging Face folder instead"
        )
    return SPLITS[name]


def _ids(source: _Source) -> dict[str, int]:
    return {token: id for id, token in enumerate(source.tokens)}


def _sentence_piece(source: _Source) -> dict[str, Any]:
    if not source.scores:
        raise UserError(
            f"{source.where} has no scores (tokenizer.ggml.scores), which its vocabulary needs; get it again"
        )
    ids = _ids(source)
    return _spaced(
        source, ids, list(_scored_merges(source, ids)), source.flag("add_space_prefix", True), source.id("unknown", 0)
    ) | {"starts": source.flag("add_bos_token", True)}


def _gemma4(source: _Source) -> dict[str, Any]:
    """Lines and runs of line ends are merged apart. llama.cpp lets each text begin with the start token, whatever the
    file says."""
    split = {"type": "Split", "pattern": {"Regex": r"\n+"}, "behavior": "Isolated", "invert": False}
    parts = _spaced(source, _ids(source), source.merges(), False, source.id("unknown"))
    return parts | {"pre_tokenizer": split, "starts": True}


def _spaced(
    source: _Source, ids: dict[str, int], merges: list[list[str]], prefix: bool, unknown: int | None
) -> dict[str, Any]:
    """BPE on characters, with `▁` for a space, a `prefix` of it, and bytes for what has no token."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    back = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    first = [{"type": "Prepend", "prepend": _SPACE}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*first, replace]},
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {
            "type": "BPE", "unk_token": None if unknown is None else source.tokens[unknown], "fuse_unk": True,
            "byte_fallback": True, "vocab": ids, "merges": merges,
        },
    }  # fmt: skip


def _scored_merges(source: _Source, ids: dict[str, int]) -> Iterator[list[str]]:
    """Every pair of tokens that makes a token, the one with the highest score first. Raises `UserError` if there are too
    many: they grow with the tokens' length squared."""
    count = characters = 0
    for token in sorted(source.tokens, key=lambda token: -source.scores[ids[token]]):
        for at in range(1, len(token)):
            if token[:at] in ids and token[at:] in ids:
                count, characters = count + 1, characters + len(token)
                if count > _MOST_MERGES or characters > _MOST_MERGED:
                    raise UserError(
                        f"{source.where}: its vocabulary makes over {_MOST_MERGES:,} merges, or {_MOST_MERGED:,} characters of "
                        "them; it is none of a text"
                    )
                yield [token[:at], token[at:]]


def _start_template(token: str, id: int) -> dict[str, Any]:
    start = {"SpecialToken": {"id": token, "type_id": 0}}
    text, other = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    special = {token: {"id": token, "ids": [id], "tokens": [token]}}
    return {
        "type": "TemplateProcessing",
        "single": [start, text],
        "pair": [start, text, other],
        "special_tokens": special,
    }
