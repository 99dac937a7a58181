"""Count the tokens of a text file."""

from __future__ import annotations

from collections.abc import Callable

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.textfile.question import TextFile, TextFileQuestion
from tui_llm.llm.data.texts import read_text
from tui_llm.session.open_model import OpenModel

LARGEST = 20_000_000  # bytes: takes a second or two


@answers(TextFileQuestion)
def answer(open_model: OpenModel, question: TextFileQuestion, overtaken: Callable[[], bool]) -> TextFile:
    """Raises `UserError` if the file can't be read, isn't text, or is too large."""
    try:
        path = paths.expand(question.path.strip())
        found = path.is_file()
    except OSError as error:
        raise UserError(f"that is not a file's name: {error}") from error
    if not found and path.is_dir():
        raise UserError(f"{question.path.strip()!r} is a folder; give the path of a text file in it")
    if not found:
        raise UserError(f"there is no file {question.path.strip()!r}; give the path of a text file of yours")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from error
    if size > LARGEST:
        raise UserError(f"{path} has {size:,} bytes; give a file of at most {LARGEST:,} here")
    text = read_text(path, LARGEST)
    return TextFile(str(path), size, len(open_model.tokenizer.encode(text)), open_model.tokenizer.name)
