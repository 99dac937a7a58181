"""Start a run from a trained model's weights and vocabulary (fine-tuning).

The run keeps a copy of the model in `start/`, so that it does not depend on the original.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.shards import INDEX, WHOLE, weight_files
from tui_llm.llm.tokens import closed_files
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import TrainingSettings, from_fields

FOLDER = "start"
CHAT = "chat_template.jinja"
_NEEDED = ("config.json",)
_VOCABULARY = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either of these
_RULES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", CHAT)  # those that there are


def fit(given: dict[str, Any], base: TrainingSettings, config: GPTConfig) -> TrainingSettings:
    """Returns `base` with the fields in `given`, which include `from_model`, and that model's shape and vocabulary.

    `block_size` defaults to the model's context and may be shorter. Raises `UserError` if `given` contradicts the
    model.
    """
    name = str(given["from_model"])
    shape = {"layers": config.layers, "heads": config.heads, "width": config.width, "tokenizer": name}
    asked = from_fields(given, from_fields({"block_size": config.context, "arch": "", **shape}, base))
    for field, value in shape.items():
        if getattr(asked, field) != value:
            raise UserError(
                f"{field} {getattr(asked, field)} contradicts the model {name}, which has {value}; omit --{field}"
                if field != "tokenizer"
                else f"the vocabulary is that of the model {name}; omit --tokenizer"
            )
    if asked.block_size > config.context:
        raise UserError(
            f"block size {asked.block_size} is more than the {config.context} positions of the model {name}; give at most "
            "those"
        )
    return asked


def copy(model: Path, run: Run) -> None:
    """Copies a model folder into the run. Raises `UserError` if a file is missing or can't be copied."""
    folder = run.path / FOLDER
    try:
        storage.make_folders(folder)
        closed = () if closed_files.kind_of(model) is None else ("vocab.json",)  # of characters or words
        shards = [path.name for path in weight_files(model) if path.name != WHOLE]
        for name in (*_NEEDED, *closed, *_vocabulary(model), *([INDEX, *shards] if shards else [WHOLE])):
            if not (model / name).is_file():
                raise UserError(f"can't start from the model folder {model}: it has no {name}")
            storage.copy_file(model / name, folder / name)
    except OSError as error:
        raise UserError(f"can't copy the model {model} to {folder}: {error.strerror or error}") from error


def _vocabulary(model: Path) -> list[str]:
    """The names of the files that have the vocabulary and its rules."""
    whole = next((names for names in _VOCABULARY if all((model / name).is_file() for name in names)), _VOCABULARY[1])
    return [*whole, *(name for name in _RULES if (model / name).is_file())]
