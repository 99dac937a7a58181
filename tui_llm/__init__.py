"""See how a language model is pre-trained, live, in the terminal. Importing this package imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tui_llm.api import LanguageModel, check_model, open_model
    from tui_llm.training.run.health import run_health

__version__ = "0.1.0"
__all__ = ["LanguageModel", "__version__", "check_model", "open_model", "run_health"]


def __getattr__(name: str) -> Any:
    """Imports torch on the first access, not with the package."""
    if name in ("LanguageModel", "check_model", "open_model"):
        from tui_llm import api

        return getattr(api, name)
    if name == "run_health":
        from tui_llm.training.run.health import run_health

        return run_health
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
