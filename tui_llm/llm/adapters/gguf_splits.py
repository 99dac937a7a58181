"""How a GGUF file's `tokenizer.ggml.pre` cuts text into words before byte-pair merges: llama.cpp's table.

Each name stands for a list of regular expressions. The first cuts the text; each next one cuts the pieces that the one
before left; what no expression matches is a piece too. The file holds the name only, so its meaning is what llama.cpp
(src/llama-vocab.cpp) does for it. For the names of Mistral's and OpenAI's newer vocabularies that is not quite the
expression of the original tokenizer: upper case is A to Z there, not every upper-case letter, and combining marks
are no letters.
"""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.llm.tokens.tokenizer import GPT2_PATTERN


@dataclass(frozen=True, slots=True)
class Split:
    """What a name in `tokenizer.ggml.pre` means.

    patterns: the regular expressions, applied in order.
    whole_words: whether a word that is a token is not merged from its bytes (`ignore_merges`).
    starts: whether a text begins with the start token unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    starts: bool = False


_SHORT_ANY_CASE = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_ASCII_SIGNS = r"""!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~"""
_CJK = r"(?:(?!\s)[一-龥\u0800-一가-\ud7ff])+"  # llama.cpp has no white space beyond ASCII here


def _words(digits: str, *, short: str = f"{_SHORT_ANY_CASE}|", signs: str = r" ?[^\s\p{L}\p{N}]+[\r\n]*") -> str:
    """GPT-4's expression (cl100k_base), on which Llama 3, Qwen and others vary the digits."""
    return rf"{short}[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}|{signs}|{_SPACE}"


def _cased(short: str, digits: str) -> str:
    """An upper-case word, a lower-case one, or a capitalized one."""
    upper, lower = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
    front = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{front}{upper}*{lower}+{short}|{front}{upper}+{lower}*{short}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACE}"
    )


_GPT4 = _words(r"\p{N}{1,3}")
_QWEN2 = _words(r"\p{N}")
_MARKS = (
    rf"{_SHORT_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACE}"
)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    rf"[{_ASCII_SIGNS}][A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACE}",
)
# The letters with case, in the version of Unicode of DeepSeek LLM's tokenizer.
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-"
    "\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_NO_STOPS = r" ?[^(\s|.,!?…。，、।۔،)]+"
_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"
_THREE_DIGITS = "[0-9][0-9][0-9]"

_GROUPS: tuple[tuple[str, Split], ...] = (
    # A file without a name is read as "default", as llama.cpp does.
    ("default", Split((_PUNCTUATION, GPT2_PATTERN, r"\p{N}+", _THREE_DIGITS))),
    ("gpt-2 phi-2 jina-es jina-de gigachat a.x-4.0 mellum modern-bert mpt olmo jais exaone4 trillion granite-docling",
     Split((GPT2_PATTERN,))),
    ("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", Split((r"\p{N}", GPT2_PATTERN))),
    ("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", Split((_GPT4,), whole_words=True, starts=True)),
    ("dbrx smaug-bpe glm4 chatglm-bpe", Split((_GPT4,))),
    ("minicpm5", Split((r"\p{N}{1,3}", _words(r"\p{N}+")), whole_words=True)),
    ("qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", Split((_QWEN2,))),
    ("qwen35", Split((_MARKS,))),
    ("ufakzeka", Split((_words(r"\p{N}", short=""),))),
    ("laguna", Split((r"[^\n]+|[\n]+", _QWEN2))),
    ("seed-coder", Split((_words(r"\p{N}", signs=r" ?[^\s\p{L}\p{N}\r\n]+"),))),
    ("bailingmoe bailingmoe2 llada-moe",
     Split((rf"{_SHORT_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",))),
    ("tekken", Split((_cased("", r"\p{N}"),), whole_words=True, starts=True)),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", Split((_cased(f"(?:{_SHORT_ANY_CASE})?", r"\p{N}{1,3}"),))),
    ("deepseek-llm", Split((
        r"[\r\n]", rf"\s?[{_CASED_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟、-。]+", r"\s+$", _CJK, r"\p{N}+"))),
    ("deepseek-coder", Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}"))),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", Split(_DEEPSEEK3)),
    ("falcon", Split((r"[\p{P}\$\+<=>\^~\|`]+", GPT2_PATTERN, _THREE_DIGITS))),
    ("poro-chat bloom gpt3-finnish", Split((_NO_STOPS,))),
    ("viking", Split((_NO_STOPS, r"\p{N}"))),
)  # fmt: skip

SPLITS = {name: split for names, split in _GROUPS for name in names.split()}
