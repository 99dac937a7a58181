"""Whether what only some people need is installed. Nothing is imported for that."""

from __future__ import annotations

import importlib.util

from tui_llm.common.errors import UserError


def check_tensorboard() -> None:
    """Raises `UserError` where the extra is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard's event files need an extra: pip install 'tui-llm[tensorboard]'")
