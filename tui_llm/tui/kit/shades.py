"""How a weight from 0 to 1 is shown: five levels, each with its own character and colour, and their legend."""

from __future__ import annotations

LEVELS = (0.01, 0.05, 0.15, 0.40)  # lower bound of each level but the first
SHADES = " ░▒▓█"
BLENDS = (0.0, 0.2, 0.4, 0.65, 0.9)  # share of the theme's colour at each level


def level(weight: float) -> int:
    return sum(weight >= least for least in LEVELS)


def shade(weight: float) -> str:
    return SHADES[level(weight)]


LEGEND = "  ".join(
    f"{sign} from {least:.0%}".replace("%", " %") for sign, least in zip(SHADES[1:], LEVELS, strict=True)
)


def short_percent(weight: float) -> str:
    """A weight in at most four characters: 100%, 7%, <1%, 0%."""
    return "<1%" if 0 < weight < 0.005 else f"{weight:.0%}"
