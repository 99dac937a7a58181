"""The known name that a mistyped one may have meant."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean small? ` for `smal`; empty where no name is close."""
    from difflib import get_close_matches  # slow to import, and needed after an error only

    names = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.7)
    return f"did you mean {names[close[0]]}? " if close else ""


def no_such(what: str, name: str, known: Iterable[str], more: str = "") -> str:
    """The line for an unknown name: `there is no preset 'smal'; did you mean small? choose one of: toy, small`."""
    names = list(known)
    return f"there is no {what} {name!r}; {did_you_mean(name, names)}choose one of: {', '.join(names) or 'none'}{more}"
