"""The tokenizer files of a Hugging Face folder, as the one `tokenizer.json` that says the same.

Rules stand in several files, which transformers 4 and 5 write differently:

- `tokenizer.json`, if there is one, has vocabulary, merges, added tokens and rules.
- Otherwise `vocab.json` and `merges.txt` have vocabulary and merges, and GPT-2's rules hold.
- `tokenizer_config.json` names the special tokens; `added_tokens_decoder` in it lists added tokens. Without that list
  `special_tokens_map.json` and `added_tokens.json` do.
- GPT-2's class of transformers also obeys `add_prefix_space`, and uses <|endoftext|> for names that no file has.

A special token without an id gets the next one, as in transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import TOKENIZER, VOCABULARY, parse_json, read_foreign, read_json
from tui_llm.llm.tokens.added_tokens import AddedToken, check_count, read_added
from tui_llm.llm.tokens.pre_tokenizer import UnknownRule
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.vocab_json import check_ids, read_vocab

FILE = "tokenizer.json"
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_GPT2_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")
_JSON_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")  # they obey tokenizer.json alone


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What the files of a folder say.

    raw: the content of a tokenizer.json, with all added tokens.
    where: the file that `raw` is from, for messages; merges: `merges.txt`, where that is another one.
    changed: whether `raw` says more than the file does.
    added: the added tokens. special: name (`bos_token`) → text. add_bos: whether texts begin with the start token.
    """

    raw: dict[str, Any]
    where: Path
    merges: Path
    changed: bool
    added: tuple[AddedToken, ...]
    special: dict[str, str] = field(default_factory=dict)
    add_bos: bool = False

    def size(self, rows: int | None = None) -> int:
        """The number of ids, the unused among them included. `rows`: the number of ids that the model knows; added
        tokens beyond are left out. Raises `UserError` if others are beyond."""
        vocab = self.raw["model"].get("vocab")
        ids, added = (
            vocab if isinstance(vocab, dict) else _listed(vocab),
            {token.text: token.id for token in self.added},
        )
        own = 1 + max((id for text, id in ids.items() if text not in added), default=-1)
        if rows is not None and own > rows:
            raise UserError(
                f"{self.where}: its vocabulary has {own} tokens, its model only {rows}; they are of different models"
            )
        size = max(own, 1 + max(added.values(), default=-1))
        return size if rows is None else min(size, rows)

    def check_numbers(self) -> None:
        """Raises `UserError` if the `tokenizers` library would give an added token another id than the files do: it
        numbers them without gaps, and silently."""
        vocab = self.raw["model"].get("vocab")
        ids = vocab if isinstance(vocab, dict) else _listed(vocab)
        numbered: dict[str, int] = {}
        following = size = len(ids)
        gaps = max(ids.values(), default=-1) >= size
        for token in sorted(self.added, key=lambda token: token.id):
            if numbered.setdefault(token.text, token.id) != token.id:
                raise UserError(
                    f"{self.where} gives the added token {token.text[:40]!r} the ids {numbered[token.text]:,} and {token.id:,}, and the "
                    "tokenizers library takes the first; delete the other, or get the folder again"
                )
            wanted = ids.get(token.text, following)
            if token.id != wanted or (gaps and token.text not in ids):
                raise UserError(
                    f"{self.where} has ids with gaps: after its {size:,} tokens the added token {token.text[:40]!r} would get the id {wanted:,}, "
                    f"not {token.id:,}; number the tokens without gaps, or get the folder again"
                )
            following += token.id == following


def read_files(folder: Path, *, gpt2: bool) -> TokenizerFiles:
    """Read the tokenizer files in `folder`. `gpt2`: whether the model's config is GPT-2's, so that transformers takes
    GPT-2's class where `tokenizer_config.json` names none. Raises `UserError` if they are damaged, `UnknownRule` if
    they name a rule that is not supported."""
    config = settings_of(folder / "tokenizer_config.json")
    named = config.get("tokenizer_class")
    # A tokenizer.json without a config beside it, as nanochat's, is no GPT-2's.
    gpt2 = gpt2 and ((folder / "config.json").exists() or not (folder / FILE).is_file())
    as_gpt2 = named in _GPT2_CLASSES or (named is None and gpt2)
    if (folder / FILE).is_file():
        where = merges = folder / FILE
        raw = parse_tokenizer(read_foreign(where, TOKENIZER), where)
    else:
        if not as_gpt2 and named not in _JSON_CLASSES:
            raise UnknownRule(f"{folder / 'tokenizer_config.json'} names the tokenizer_class {str(named)[:60]!r}")
        where, merges = folder / "vocab.json", folder / "merges.txt"
        if not where.is_file() or not merges.is_file():
            raise UserError(f"{folder} has no vocabulary: vocab.json and merges.txt are needed, or {FILE}")
        raw, as_gpt2 = _gpt2_json(read_vocab(where), read_foreign(merges, VOCABULARY), merges), True
    names = _special_names(folder, config, as_gpt2)
    known = [read_added(entry, entry.get("id"), where) for entry in raw.get("added_tokens") or ()]
    added = [*known, *_more(folder, config, raw, known, names, where)]
    changed = len(added) > len(known)
    if as_gpt2 and _set_prefix_space(raw, config.get("add_prefix_space"), folder):
        changed = True
    raw["added_tokens"] = [token.entry() for token in added]
    special = {name: entry if isinstance(entry, str) else str(entry["content"]) for name, entry in names.items()}
    return TokenizerFiles(raw, where, merges, changed, tuple(added), special, config.get("add_bos_token") is True)


def read_file(path: Path) -> TokenizerFiles:
    """A tokenizer.json under any name, alone. Raises `UserError` if it is damaged."""
    raw = parse_tokenizer(read_foreign(path, TOKENIZER), path)
    added = tuple(read_added(entry, entry.get("id"), path) for entry in raw.get("added_tokens") or ())
    return TokenizerFiles(raw, path, path, False, added)


def parse_tokenizer(data: bytes, where: Path) -> dict[str, Any]:
    """The content of a tokenizer.json. Raises `UserError` if it is none."""
    raw = parse_json(data, where)
    if not isinstance(raw, dict) or not isinstance(raw.get("model"), dict):
        raise UserError(f"{where} is not a vocabulary: a tokenizer.json of the tokenizers library is needed")
    added = raw.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise UserError(f"{where} is not a vocabulary: its added_tokens are not a list of tokens")
    check_count(added, where)
    if raw["model"].get("dropout"):
        raise UserError(
            f"{where} sets dropout to {str(raw['model']['dropout'])[:20]}: every reading would have other ids; set it to null"
        )
    if isinstance(vocab := raw["model"].get("vocab"), dict):
        check_ids(vocab, where)
    return raw


def settings_of(path: Path) -> dict[str, Any]:
    """A JSON object of settings; empty if there is no such file. Raises `UserError` if it is damaged."""
    if not path.exists():
        return {}
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object of settings; get it again")
    return raw


def written_token(value: Any) -> str | None:
    """A special token's text, from a string or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _gpt2_json(vocab: dict[str, int], merges: bytes, where: Path) -> dict[str, Any]:
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": list(merge_lines(merges, where))},
    }


def merge_lines(data: bytes, path: Path) -> Iterator[tuple[str, str]]:
    """The pairs of merges.txt as they are written."""
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; it is not a list of merges") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise UserError(f"{path}, line {number}: two pieces with a space between are needed")
        yield left, right


def _special_names(folder: Path, config: dict[str, Any], as_gpt2: bool) -> dict[str, Any]:
    """Name → the special token's text, or an object with its flags; in transformers' order."""
    found = dict(config)
    if not isinstance(config.get("added_tokens_decoder"), dict):
        found |= settings_of(folder / "special_tokens_map.json")
    if as_gpt2:
        found = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT} | found
    names = {name: found[name] for name in _NAMES if written_token(found.get(name))}
    more = found.get("extra_special_tokens") or found.get("additional_special_tokens") or []
    named = more if isinstance(more, dict) else {}
    others = {key: value for key, value in found.items() if key.endswith("_token") and key not in _NAMES}
    names |= {str(key): value for key, value in (others | named).items() if written_token(value)}
    if isinstance(more, list):
        names |= {f"extra {number}": value for number, value in enumerate(more) if written_token(value)}
    return names


def _more(
    folder: Path, config: dict[str, Any], raw: dict[str, Any], known: list[AddedToken], names: dict[str, Any], where: Path
) -> Iterator[AddedToken]:  # fmt: skip
    """The added tokens that other files than tokenizer.json have, then the special tokens without an id."""
    texts = {token.text for token in known}
    vocab = raw["model"].get("vocab")
    ids = vocab if isinstance(vocab, dict) else _listed(vocab)
    following = max([len(ids) - 1, *(token.id for token in known)]) + 1
    for token in _numbered(folder, config, names):
        if token.text not in texts:
            texts.add(token.text)
            following = max(following, token.id + 1)
            yield token
    for entry in names.values():
        text = written_token(entry) or ""
        if text in texts:
            continue
        texts.add(text)
        id = ids.get(text, following)
        following += id == following
        entry = {**entry, "special": True} if isinstance(entry, dict) else entry
        yield read_added(entry, id, where, special=True)


def _numbered(folder: Path, config: dict[str, Any], names: dict[str, Any]) -> list[AddedToken]:
    """The added tokens of `tokenizer_config.json`, or else of `added_tokens.json`."""
    path, listed = folder / "tokenizer_config.json", config.get("added_tokens_decoder")
    if isinstance(listed, dict):
        check_count(listed, path)
        found = [read_added(entry, _number(id), path, normalized=True) for id, entry in listed.items()]
    else:
        path = folder / "added_tokens.json"
        special = {written_token(entry) for entry in names.values()}
        check_count(numbers := settings_of(path), path)
        found = [
            read_added(text, id, path, special=text in special, normalized=text not in special)
            for text, id in numbers.items()
        ]
    return sorted(found, key=lambda token: token.id)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _listed(vocab: Any) -> dict[str, int]:
    """Unigram's list of [piece, score] as piece → id."""
    pairs = vocab if isinstance(vocab, list) else []
    return {str(pair[0]): id for id, pair in enumerate(pairs) if isinstance(pair, list) and pair}


def _set_prefix_space(raw: dict[str, Any], wanted: Any, folder: Path) -> bool:
    """Apply `add_prefix_space` of tokenizer_config.json. Returns whether that changed `raw`."""
    step = raw.get("pre_tokenizer")
    if not isinstance(wanted, bool) or not isinstance(step, dict):
        return False
    if step.get("type") == "ByteLevel":
        changed = step.get("add_prefix_space", True) is not wanted
        raw["pre_tokenizer"] = {**step, "add_prefix_space": wanted}
        return changed
    steps = step.get("pretokenizers")
    last = steps[-1] if isinstance(steps, list) and steps else {}
    own = last.get("add_prefix_space", True) if isinstance(last, dict) and last.get("type") == "ByteLevel" else wanted
    if own is not wanted:
        raise UserError(
            f"{folder / 'tokenizer_config.json'} sets add_prefix_space to {str(wanted).lower()}, {FILE} to {str(own).lower()}; make both the same"
        )
    return False
