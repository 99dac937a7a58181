"""The vocabulary of a checkpoint file, which holds none: beside it, or gpt2. Pickled ones (nanoGPT's meta.pkl,
nanochat's tokenizer.pkl) are never opened."""

from __future__ import annotations

import shlex
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.llm.formats import scored_bpe
from tui_llm.llm.formats.detect import LLAMA2_C, NANOCHAT
from tui_llm.llm.tokens.catalog import load_named
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.llm.tokens.vocab_json import read_vocab

CHARACTERS = "vocab.json"  # of nanoGPT's models of characters
GPT2, GPT2_PADDED = 50257, 50304  # gpt2's number of tokens; padded to a multiple of 64, as nanoGPT does
_CONVERT = """python -c "import json, pickle, sys; json.dump(pickle.load(open(sys.argv[1], 'rb'))['stoi'], open(sys.argv[2], 'w'))\""""


def has_folder_layout(folder: Path) -> bool:
    """Whether the folder has a vocabulary in Hugging Face's layout."""
    merges = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    return merges or (folder / "tokenizer.json").is_file()


def load(path: Path, kind: str, name: str, rows: int | None) -> tuple[Tokenizer, str]:
    """The vocabulary of the checkpoint `path` by program `kind` with `rows` ids (None: unknown), and where it is from.
    Raises `UserError` if there is none."""
    folder = path.parent
    if kind == LLAMA2_C and rows is not None:
        return _scored(path, name, rows)
    if kind == NANOCHAT:
        raise UserError(
            f"{path} needs its vocabulary as tokenizer.json beside it (nanochat's tokenizer.pkl is a pickle, which can run code "
            "and is never opened): save its tokenizer with the tokenizers library"
        )
    if (folder / CHARACTERS).is_file():
        vocabulary = _characters(folder / CHARACTERS, name)
        if rows is not None and vocabulary.size != rows:
            raise UserError(
                f"{folder / CHARACTERS} has {vocabulary.size:,} characters, the model {rows:,}; they are of different models"
            )
        return vocabulary, "the vocabulary of characters in vocab.json"
    if rows in (GPT2, GPT2_PADDED):
        padding = f", the {rows - GPT2} rows after its {GPT2:,} tokens left out" if rows > GPT2 else ""
        return load_named("gpt2"), f"the vocabulary gpt2{padding}"
    tokens = "an unknown number of" if rows is None else f"{rows:,}"
    raise UserError(
        f"{path} has {tokens} tokens and no vocabulary beside it; put its tokenizer.json, or vocab.json and merges.txt, into "
        f"{folder}; for nanoGPT's characters, write its meta.pkl there as vocab.json (in nanoGPT's folder, with your data's name): "
        f"{_CONVERT} data/NAME/meta.pkl {shlex.quote(str(folder.absolute() / CHARACTERS))}"
    )


def _characters(file: Path, name: str) -> ClosedTokenizer:
    """The characters in `file`, each with its id, as nanoGPT's `stoi`. Raises `UserError` for anything else."""
    ids = read_vocab(file)
    if longer := next((token for token in ids if len(token) != 1), None):
        raise UserError(
            f"{file} has {longer[:40]!r}, which is not one character: a vocabulary of longer tokens needs merges.txt too"
        )
    tokens = sorted(ids, key=lambda token: ids[token])
    if [ids[token] for token in tokens] != list(range(len(ids))) or any(
        "\ud800" <= token <= "\udfff" for token in tokens
    ):
        raise UserError(
            f"{file} is damaged: {len(ids):,} characters need the ids 0 to {len(ids) - 1:,}; write it again"
        )
    return ClosedTokenizer(name, "char", tokens)


def _scored(path: Path, name: str, rows: int) -> tuple[Tokenizer, str]:
    """llama2.c's `tokenizer.bin`, or its only `tok*.bin`."""
    folder = path.parent
    found = [folder / "tokenizer.bin"] if (folder / "tokenizer.bin").is_file() else sorted(folder.glob("tok*.bin"))
    if len(found) != 1:
        raise UserError(f"{path} needs its vocabulary beside it: llama2.c's tokenizer.bin, or a tokenizer.json")
    return scored_bpe.load(found[0], name, rows), f"the vocabulary in {found[0].name}"
