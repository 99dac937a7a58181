"""The list of all checks; runs them. A check that fails itself, whatever the folder has, is a finding too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tui_llm.common import paths
from tui_llm.common.errors import UserError, message_line
from tui_llm.facts.check import CheckReport, CheckStatus, Finding
from tui_llm.llm.check import prediction, vocabulary, weights
from tui_llm.llm.check.checked_model import CheckedModel, unchecked
from tui_llm.llm.hub import lookup
from tui_llm.llm.model.tensor_shapes import headers_once

Check = Callable[[CheckedModel], Finding]
CHECKS: dict[str, Check] = {
    "opens": weights.opens,
    "tensors": weights.tensors,
    "finite weights": weights.finite,
    "dtype": weights.dtype,
    "tying": weights.tying,
    "round trip": vocabulary.round_trip,
    "ids": vocabulary.ids,
    "vocabulary": vocabulary.rows,
    "special tokens": vocabulary.special_tokens,
    "logits": prediction.logits,
    "chat template": prediction.chat_template,
    "context": prediction.context,
}


@headers_once()
def check_model(name: str) -> CheckReport:
    """Run all checks on a model's name, folder or file. Raises `UserError` if there is no such model, folder or file."""
    try:
        found = lookup.find(name)
    except UserError as error:
        path = paths.expand(name)
        if not _exists(path):
            raise
        return CheckReport(name, str(path), (Finding("opens", CheckStatus.BROKEN, str(error)),))
    model = CheckedModel(found.folder, found.name)
    findings = tuple(_result(check, run, model) for check, run in CHECKS.items())
    return CheckReport(found.name, str(found.folder), findings)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _result(name: str, check: Check, model: CheckedModel) -> Finding:
    try:
        return check(model)
    except UserError as error:
        return model.fault(name, error)
    except Exception as error:  # foreign files can make other libraries raise anything
        return unchecked(name, f"the check failed, {type(error).__name__}: {message_line(error)}")
