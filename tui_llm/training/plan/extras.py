"""Check whether optional packages are installed, without importing them."""

from __future__ import annotations

import importlib.util

from tui_llm.common.errors import UserError


def check_tensorboard() -> None:
    """Raises `UserError` if the extra `tensorboard` is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard's event files need an extra: pip install 'tui-llm[tensorboard]'")
