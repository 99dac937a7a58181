"""What `tui-llm check` finds out about a model folder or file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CheckStatus(StrEnum):
    OK = "OK"
    WARNING = "warning"
    BROKEN = "broken"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. The texts may quote foreign text: pass them through `common.display`.

    name: of the check.
    found: what was found; if it was not checked, why not.
    advice: what to do next; empty if there is nothing to do.
    """

    name: str
    status: CheckStatus
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All findings about one model, in the order of the checks; `path` is its folder or file."""

    model: str
    path: str
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> bool:
        return any(finding.status is CheckStatus.BROKEN for finding in self.findings)

    def count(self, status: CheckStatus) -> int:
        return sum(finding.status is status for finding in self.findings)
