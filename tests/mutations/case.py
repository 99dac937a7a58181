"""A test case, and whether its outcome is correct."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.mutations import forked
from tests.mutations.forked import Ending

MEMORY = 1 << 30  # bytes more than for the original files
_RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Case:
    """A call with mutated files.

    `words` are the command line's; `plain` are those for the original files. Or `call` is called instead, for the original
    files too where `plain` is `words`. `same`: the mutation must not change the result. `kept` returns the part of an answer
    that must be as for the original files. `check` receives the answer, if there is one, and returns what is wrong with
    it. `refusal`: the case must be refused, with a line that this regular expression matches.
    """

    name: str
    words: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    call: Callable[[], int | None] | None = None
    same: bool = False
    kept: Callable[[Any], Any] | None = None
    check: Callable[[Any], str] | None = None
    refusal: str = ""


def fault(case: Case, ending: Ending, base: Ending | None) -> str:
    """Returns why `ending` is not correct; empty if it is. `base` is the outcome for the original files."""
    told = (ending.err or ending.out).strip()[-400:]
    if ending.hung:
        return f"hangs after {ending.cpu:.1f} s of CPU"
    if ending.code == -24 or ending.cpu > forked.CPU:
        return f"takes over {forked.CPU} s of CPU"
    if ending.code not in (0, 2):
        return f"ends with {ending.code}: {told}"
    if "Traceback" in ending.out + ending.err:
        return f"traceback: {told}"
    if base is not None and ending.memory > base.memory + MEMORY:
        return f"takes {(ending.memory - base.memory) >> 20:,} MB over the base"
    if _RAW.search(ending.err) or _RAW.search(ending.out):
        return f"raw control character: {told!r}"
    if ending.code == 2:
        if ending.out.strip():
            return f"fails, and says on stdout: {ending.out[:100]!r}"
        if ending.err.count("\n") != 1 or not ending.err.startswith("tui-llm: "):
            return f"not one line: {ending.err[:400]!r}"
        if case.refusal and not re.search(case.refusal, ending.err):
            return f"refused for another reason than {case.refusal!r}: {told}"
        return f"refused, but must be as before: {told}" if case.same else ""
    if case.refusal:
        return f"must be refused: {ending.out[:200]}"
    try:
        answer = json.loads(ending.out, parse_constant=_refuse)
    except ValueError as error:
        return f"no strict JSON ({error}): {ending.out[:150]!r}"
    if (case.same or case.kept) and base is not None:
        kept = _all if case.same or case.kept is None else case.kept
        if kept(answer) != kept(json.loads(base.out)):
            return f"another answer than before: {ending.out[:200]}"
    return case.check(answer) if case.check is not None else ""


def _all(answer: Any) -> Any:
    return answer


def _refuse(word: str) -> None:
    raise ValueError(f"{word} in it")
