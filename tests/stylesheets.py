"""Parse Textual's CSS once in a process: every app of the tests has the same rules, and parsing them anew was a tenth of
the time in which an app is mounted."""

from __future__ import annotations

from typing import Any

from textual.css.stylesheet import Stylesheet

_parse_rules = Stylesheet._parse_rules
_parsed: dict[frozenset[tuple[str, str]], dict[tuple[Any, ...], list[Any]]] = {}  # for each set of CSS variables


def parse_rules(self: Stylesheet, css: str, read_from: Any, *rest: Any, **named: Any) -> list[Any]:
    variables, parsed = vars(self).get("_parsed_with", (None, {}))
    if variables is not self._variables:  # `set_variables` replaces them all
        parsed = _parsed.setdefault(frozenset(self._variables.items()), {})
        self._parsed_with = self._variables, parsed  # type: ignore[attr-defined]
    key = (css, read_from, rest, *sorted(named.items()))
    if key not in parsed:
        parsed[key] = _parse_rules(self, css, read_from, *rest, **named)
    return parsed[key]


def install() -> None:
    Stylesheet._parse_rules = parse_rules  # type: ignore[method-assign]
