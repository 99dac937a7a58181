"""The prompt of a run's samples, where its vocabulary may not have all characters or words."""

from __future__ import annotations

from collections.abc import Callable

from tui_llm.common.errors import UserError
from tui_llm.training.run.settings import TrainingSettings


def usable(prompt: str, encode: Callable[[str], object]) -> str:
    """The prompt; no text in place of the default prompt if the vocabulary can't encode that, so that the samples start with
    its first token. Raises `UserError` for a prompt that the user gave."""
    try:
        encode(prompt)
    except UserError as error:
        if prompt == TrainingSettings().sample_prompt:
            return ""
        raise UserError(
            f"the sample prompt {prompt[:40]!r} can't be used: {error}, with --sample-prompt TEXT"
        ) from error
    return prompt
