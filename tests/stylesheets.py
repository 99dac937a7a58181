"""Parse Textual's CSS once in a process: every app of the tests has the same rules, and parsing them anew was a tenth of
the time in which an app is mounted."""

from __future__ import annotations

from typing import Any

from textual.css.stylesheet import Stylesheet

_parse_rules = Stylesheet._parse_rules
_parsed: dict[tuple[Any, ...], list[Any]] = {}


def parse_rules(self: Stylesheet, css: str, read_from: Any, *rest: Any, **named: Any) -> list[Any]:
    key = (css, read_from, rest, *sorted(named.items()), frozenset(self._variables.items()))
    if key not in _parsed:
        _parsed[key] = _parse_rules(self, css, read_from, *rest, **named)
    return _parsed[key]


def install() -> None:
    Stylesheet._parse_rules = parse_rules  # type: ignore[method-assign]
