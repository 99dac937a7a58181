"""Tiny GGUF files whose vocabulary shows every cut: merges are learned on one text that is not cut into words."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from tui_llm.llm.tokens.tokenizer import byte_characters

# White space in runs, line ends of three kinds, digits, contractions in both cases, scripts, accents, emoji, code.
TEXT = (
    "x =  10\n    1. item\n   22\r\n\r\nI've DON'T she'll HE'D it's IT'S we're\tthey'Re can'tlike o'storm   end  \n"
    "1 12 123 1234 12345 1234567 3.14 ½ ٣٤٥ ２０２４ v2x\n"
    "École ÉCOLE e\u0301te\u0301 naïve straße HelloWorld iPhone XMLHttp ǅungla\n"
    "你好，世界！ 中文abc 日本語のテキスト カタカナ 한국어 텍스트 مرحبا بالعالم हिन्दी ไทย Привет мир ελληνικά עברית\n"
    "🙂👍🏽 👨‍👩‍👧 ©€→∑ “quotes” … a–b\u00a0c\u3000d\n"
    "def f(a, b=[1, 2]):\n\treturn {'k': a//b}  # c++ != <tag/>\n\n\n    if x&&y||z: $5.00 ~`^|\\\n!important ?word (p) http://a.b/c_d-e/\n \n\n\n\tz  "
)
SPECIAL = "<|endoftext|>"
MERGES = 470


@lru_cache(1)
def byte_level() -> tuple[list[str], list[str]]:
    """(tokens, merges) of a byte-level BPE learned on the whole `TEXT`: it would merge across any cut."""
    letters = byte_characters()
    symbols = [letters[byte] for byte in TEXT.encode()]
    tokens, merges = [*letters.values()], []
    for _ in range(MERGES):
        counts = Counter(pairwise(symbols))
        if not counts:
            break
        left, right = min(counts, key=lambda pair: (-counts[pair], len("".join(pair)), pair))
        merges.append(f"{left} {right}")
        if left + right not in tokens:
            tokens.append(left + right)
        symbols = _merged(symbols, left, right)
    return [*tokens, SPECIAL, "<extra>"], merges


def _merged(symbols: list[str], left: str, right: str) -> list[str]:
    made, at = [], 0
    while at < len(symbols):
        if symbols[at : at + 2] == [left, right]:
            made.append(left + right)
            at += 2
        else:
            made.append(symbols[at])
            at += 1
    return made


def write_vocabulary(path: Path, pre: str | None, **more: Any) -> None:
    """A GGUF file of a byte-level vocabulary without weights. `more`: further values, by the name of the writer's
    method without `add_`."""
    import gguf

    tokens, merges = byte_level()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 2) + [3, 4])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 2)
    finish(writer, more)


def finish(writer: Any, more: dict[str, Any]) -> None:
    for name, value in more.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@lru_cache(1)
def sentence_piece() -> tuple[list[str], list[float], list[int]]:
    """(tokens, scores, types) of a SentencePiece vocabulary learned on `TEXT`, without some of its characters."""
    symbols = list("▁" + TEXT.replace(" ", "▁"))
    known = sorted({symbol for symbol in symbols if symbol < "\u3000"})
    pieces = []
    for _ in range(200):
        pairs = [pair for pair in pairwise(symbols) if all(part[0] < "\u3000" and part[-1] < "\u3000" for part in pair)]
        counts = Counter(pair for pair in pairs if len("".join(pair)) < 9)
        left, right = min(counts, key=lambda pair: (-counts[pair], len("".join(pair)), pair))
        pieces.append(left + right)
        symbols = _merged(symbols, left, right)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, 3, 3, *[6] * 256]
    more = [piece for piece in dict.fromkeys([*pieces, *known]) if piece not in tokens]
    scores = [0.0] * len(tokens) + [-float(at) for at in range(len(more))]
    return [*tokens, *more, "<extra>", "▁▁▁▁", SPECIAL], [*scores, 0.0, 0.0, 0.0], [*types, *[1] * len(more), 4, 4, 3]


def write_sentence_piece(path: Path, **more: Any) -> None:
    import gguf

    tokens, scores, types = sentence_piece()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    finish(writer, more)


def write_gemma4(path: Path, **more: Any) -> None:
    """`sentence_piece`'s tokens with merges: for each token the first cut into two others."""
    import gguf

    tokens, _, types = sentence_piece()
    known, merges = set(tokens), []
    for token, kind in zip(tokens, types, strict=True):
        cuts = [at for at in range(1, len(token)) if token[:at] in known and token[at:] in known]
        if kind == 1 and cuts:
            merges.append(f"{token[: cuts[0]]} {token[cuts[0] :]}")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gemma4")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    finish(writer, more)
