"""Textual's dark and light theme, with text colours that are readable on every background."""

from __future__ import annotations

import dataclasses

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


def readable() -> list[Theme]:
    """The two themes with readable text colours, under Textual's names."""
    own = ((BUILTIN_THEMES[name], words) for name, words in WORDS.items())
    return [dataclasses.replace(theme, variables={**theme.variables, **words}) for theme, words in own]
