"""Textual's dark and light theme, with text colours that are readable on every background, and three palettes, dark and light
each, whose colours stay apart for people with deuteranopia, protanopia or tritanopia. All are plain Textual themes, by name.

`tests/tui/test_palettes.py` simulates each deficiency (Machado et al. 2009) and measures how far apart the colours are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from textual.color import Color, ColorParseError
from textual.theme import BUILTIN_THEMES, Theme

DARK, LIGHT = "textual-dark", "textual-light"
# Replaces the theme's own colours whose contrast is below 4.5 : 1 (WCAG 2, AA) on the backgrounds they are used on.
WORDS = {
    DARK: {"text-secondary": "#74A3C6"},
    LIGHT: {
        "text-accent": "#754A0C",
        "text-warning": "#754A0C",
        "text-success": "#1E5B34",
        "text-secondary": "#00427A",
    },
}
ROLES = ("primary", "secondary", "warning", "error", "success", "accent")
# The colours of words and chart series, in the order of `ROLES`: for the dark theme, and for the light one.
PALETTES = {
    "deuteranopia": (
        ("#51BDE3", "#A1B989", "#E5A410", "#FFA25A", "#84E4B4", "#F0E345"),
        ("#48228F", "#3B4E93", "#661B0B", "#862F00", "#341E3C", "#563D6E"),
    ),
    "protanopia": (
        ("#65CFEB", "#DBFFE7", "#FFA038", "#FF9C72", "#2ADC9B", "#FFFF36"),
        ("#004927", "#59009A", "#584C0F", "#722F3F", "#0E244F", "#441176"),
    ),
    "tritanopia": (
        ("#B0C8E8", "#ECA1F1", "#E1A855", "#88B6EA", "#6AD7B0", "#C0E844"),
        ("#00177C", "#5E4786", "#615605", "#340058", "#1B5734", "#843151"),
    ),
}
BRIGHT = (
    "#56B4E9",
    "#B9A0F0",
    "#E69F00",
    "#FF8060",
    "#60DDB0",
    "#F0E442",
)  # what the light palettes blend backgrounds from


def readable() -> list[Theme]:
    """The two themes with readable text colours, under Textual's names."""
    own = ((BUILTIN_THEMES[name], words) for name, words in WORDS.items())
    return [dataclasses.replace(theme, variables={**theme.variables, **words}) for theme, words in own]


def colour_blind() -> list[Theme]:
    """The palettes of `PALETTES`: a dark and a light theme each."""
    themes = []
    for palette, (dark, light) in PALETTES.items():
        for brightness, words, ground in (("dark", dark, dark), ("light", light, BRIGHT)):
            theme = BUILTIN_THEMES[f"textual-{brightness}"]
            named = {f"text-{role}": colour for role, colour in zip(ROLES, words, strict=True)}
            grounds = dict(zip(ROLES, ground, strict=True))
            variables = {**theme.variables, **named}
            themes.append(dataclasses.replace(theme, name=f"{palette}-{brightness}", variables=variables, **grounds))  # type: ignore[arg-type]
    return themes


def other_brightness(name: str) -> str:
    """The light theme of a dark one of ours, and the dark one of a light one."""
    palette, _, brightness = name.rpartition("-")
    return f"{palette}-{'light' if brightness == 'dark' else 'dark'}" if brightness in ("dark", "light") else DARK


def next_palette(name: str) -> str:
    """The theme of the next palette, as dark or as light; after the last one, Textual's own."""
    palette, _, brightness = name.rpartition("-")
    palettes = ["textual", *PALETTES]
    at = palettes.index(palette) if palette in palettes else -1
    return f"{palettes[(at + 1) % len(palettes)]}-{'light' if brightness == 'light' else 'dark'}"


def theme_rgb(variables: Mapping[str, str], name: str, otherwise: str = "foreground") -> tuple[int, int, int]:
    """The colour `name` of a theme's variables, or `otherwise`, or grey."""
    for key in (name, otherwise):
        try:
            return Color.parse(variables[key]).rgb
        except (KeyError, ColorParseError):
            continue
    return (128, 128, 128)
