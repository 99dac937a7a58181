"""Rewards: a number for an answer, computed by a rule that the user types.

A rule is written NAME or NAME:ARGUMENT, in the same syntax on the command line, in a form and in JSON: `contains:happy`.
`KINDS` lists them. No torch here, so that forms and the plan of a run can check a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import no_such

SECONDS = 1.0  # for one regular expression on one answer
LONGEST = 200  # characters of an argument
MOST_REPEATS = 1000  # the library expands a{n} as it compiles: a{1000000000} would take all memory
MOST_LENGTH = 100_000
LARGEST = 1e6  # of the absolute value of a reward
HIGHEST_BY_HAND = 9


@dataclass(frozen=True, slots=True)
class RewardKind:
    """A kind of rule. `argument` names what follows the colon ("": nothing does), `help` is one sentence, `example` a
    whole rule."""

    name: str
    argument: str
    help: str
    example: str

    @property
    def syntax(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name


KINDS = {
    kind.name: kind
    for kind in (
        RewardKind(
            "contains",
            "TEXT",
            "1 if the answer contains TEXT as whole words (upper or lower case), else 0",
            "contains:happy",
        ),
        RewardKind(
            "matches",
            "PATTERN",
            "1 if the regular expression PATTERN is found in the answer, else 0",
            r"matches:\bsaid\b.*!",
        ),
        RewardKind(
            "length", "N", "1 for an answer of N characters, 1 − |length − N| ÷ N for others, at least 0", "length:60"
        ),
        RewardKind("full-stop", "", "1 if the answer ends with a full stop, else 0", "full-stop"),
        RewardKind("never", "TEXT", "1 if the answer does not contain TEXT as whole words, else 0", "never:sad"),
        RewardKind(
            "count", "LETTER", "how many times LETTER (or a longer text) occurs, upper or lower case", "count:e"
        ),
        RewardKind("hand", "", "0 to 9, given by hand", "hand"),
    )
}
SYNTAX = ", ".join(kind.syntax for kind in KINDS.values())


@dataclass(frozen=True, slots=True)
class Reward:
    """A rule that has been checked. `spec` is its text, which `parse` reads back."""

    kind: RewardKind
    argument: str
    _score: Callable[[str], float] = field(repr=False, compare=False)

    @property
    def spec(self) -> str:
        return f"{self.kind.name}:{self.argument}" if self.kind.argument else self.kind.name

    @property
    def by_hand(self) -> bool:
        """Whether a person gives the rewards; `score` then raises `UserError`."""
        return self.kind.name == "hand"

    def score(self, answer: str) -> float:
        """The reward of an answer, a finite number. Raises `UserError` if a regular expression takes longer than
        `SECONDS`."""
        return finite(self._score(answer))


def parse(spec: str) -> Reward:
    """Read a rule, such as `contains:happy`. Raises `UserError` if it is not one."""
    name, colon, argument = spec.partition(":")
    name = name.strip().lower()
    if not name:
        raise UserError(f"there is no reward; give one of {SYNTAX}")
    if name not in KINDS:
        raise UserError(no_such("reward", visible(name), KINDS) + f"; the forms are {SYNTAX}")
    kind = KINDS[name]
    if not kind.argument and colon:
        raise UserError(f"{name} takes nothing after it: write {kind.syntax}")
    if kind.argument and not argument:
        raise UserError(f"{name} needs {kind.argument} after a colon, such as {kind.example}")
    if len(argument) > LONGEST:
        raise UserError(f"the {kind.argument} of {name} has {len(argument):,} characters; give up to {LONGEST}")
    return Reward(kind, argument, _MAKERS[name](argument))


def finite(value: float) -> float:
    """Return `value`. Raises `UserError` if it is NaN, infinite or larger than `LARGEST`."""
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise UserError(
            f"a reward is {value:g}; rewards must be finite numbers of at most {LARGEST:g}, so no step is taken"
        )
    return float(value)


def by_hand(scores: Sequence[float], count: int) -> list[float]:
    """Rewards given by hand, one for each of `count` answers. Raises `UserError` on another number of them, or one not
    from 0 to 9."""
    if len(scores) != count:
        raise UserError(f"{len(scores)} of {count} answers have a score: give each one from 0 to {HIGHEST_BY_HAND}")
    for score in scores:
        if not 0 <= finite(score) <= HIGHEST_BY_HAND:
            raise UserError(f"a score is {score:g}; give 0 to {HIGHEST_BY_HAND}")
    return [float(score) for score in scores]


# ── one maker for each kind: argument → function of the answer ───────────────────────────────────────────────────────


def _words(argument: str) -> Any:
    """A compiled pattern of `argument` as whole words; spaces in it match any white space."""
    import regex  # slow to import

    text = argument.strip()
    if not text:
        raise UserError("the text to look for is only spaces; give a word")
    body = r"\s+".join(map(regex.escape, text.split()))
    before = r"\b" if text[0].isalnum() else ""
    after = r"\b" if text[-1].isalnum() else ""
    return regex.compile(before + body + after, regex.IGNORECASE)


def _contains(argument: str) -> Callable[[str], float]:
    pattern = _words(argument)
    return lambda answer: float(pattern.search(answer) is not None)


def _never(argument: str) -> Callable[[str], float]:
    pattern = _words(argument)
    return lambda answer: float(pattern.search(answer) is None)


@lru_cache(maxsize=16)
def _compiled(argument: str) -> Any:
    """Raises `UserError` if `argument` is not a regular expression, or has too many repetitions."""
    import regex

    repeats = 1
    for numbers in regex.findall(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}", argument):
        repeats *= max((int(number) for number in numbers if number), default=1) or 1
    if repeats > MOST_REPEATS:
        raise UserError(
            f"the regular expression repeats something {repeats:,} times; up to {MOST_REPEATS:,} are possible"
        )
    try:
        return regex.compile(argument)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{visible(argument)} is not a regular expression: {visible(str(error))}") from None


def _matches(argument: str) -> Callable[[str], float]:
    pattern = _compiled(argument)

    def score(answer: str) -> float:
        try:
            return float(pattern.search(answer, timeout=SECONDS, concurrent=True) is not None)
        except TimeoutError:
            raise UserError(
                f"the regular expression {visible(argument)} takes longer than {SECONDS:g} s on one answer: avoid nested "
                "repetitions such as (a+)+"
            ) from None

    return score


def _length(argument: str) -> Callable[[str], float]:
    text = argument.strip()
    wanted = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= wanted <= MOST_LENGTH:
        raise UserError(f"the length is {visible(text)}; give 1 to {MOST_LENGTH:,} characters, such as length:60")
    return lambda answer: max(0.0, 1 - abs(len(answer.strip()) - wanted) / wanted)


def _full_stop(argument: str) -> Callable[[str], float]:
    return lambda answer: float(answer.rstrip().rstrip("\"'”’»)").endswith((".", "。", "．")))


def _count(argument: str) -> Callable[[str], float]:
    wanted = argument.casefold()
    return lambda answer: float(answer.casefold().count(wanted))


def _hand(argument: str) -> Callable[[str], float]:
    def score(answer: str) -> float:
        raise UserError(
            f"{KINDS['hand'].name}: scores are given by hand, with the keys 0 to {HIGHEST_BY_HAND} on the Reward screen"
        )

    return score


_MAKERS: dict[str, Callable[[str], Callable[[str], float]]] = {
    "contains": _contains,
    "matches": _matches,
    "length": _length,
    "full-stop": _full_stop,
    "never": _never,
    "count": _count,
    "hand": _hand,
}
