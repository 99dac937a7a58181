"""The styles of the grid's cells: of words, and of each run's or layer's line."""

from __future__ import annotations

from collections.abc import Mapping

from rich.style import Style
from textual.color import Color

from tui_llm.tui.kit.themes import theme_rgb

RUN_COLOURS = ("primary", "success", "error", "secondary", "accent")
_WORDS = {"cursor": "text-warning", "strong": "text-accent"}


class Styles:
    """Styles in the colours of a theme's `variables`, made once each. With several runs the number of a line is a run's, else
    a layer's, of `layers`: from the theme's primary colour to its warning colour."""

    def __init__(self, base: Style, variables: Mapping[str, str], runs: int, layers: int) -> None:
        self._base, self._variables, self._runs, self._layers = base, variables, runs, layers
        self._made: dict[str | int, Style] = {}

    def __call__(self, name: str | int) -> Style:
        """The style `name` (empty, `dim`, `bold`, `strong`, `cursor`), or that of line number `name`; −1 is the background."""
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = self._base + (self._line(name) if isinstance(name, int) else self._word(name))
        return found

    def _word(self, name: str) -> Style:
        colour = Color(*theme_rgb(self._variables, _WORDS.get(name, "foreground")))
        if name == "dim":
            colour = colour.blend(Color(*theme_rgb(self._variables, "background")), 0.4)
        return Style(color=_css(colour), bold=name in ("bold", "strong"))

    def _line(self, number: int) -> Style:
        if number < 0:
            return Style.null()
        if self._runs > 1:
            return Style(color=_css(self._run(number)))
        share = number / max(1, self._layers - 1)
        return Style(color=_css(self._named("primary").blend(self._named("warning"), share)))

    def _run(self, number: int) -> Color:
        """Runs beyond the fifth have the same colours again, first paler, then darker, so that no two are alike."""
        again, at = divmod(number, len(RUN_COLOURS))
        found = self._named(RUN_COLOURS[at])
        if not again:
            return found
        return found.blend(Color(*theme_rgb(self._variables, ("background", "foreground")[again % 2])), 0.45)

    def _named(self, name: str) -> Color:
        return Color(*theme_rgb(self._variables, f"text-{name}", name))


def _css(colour: Color) -> str:
    red, green, blue = colour.rgb
    return f"rgb({red},{green},{blue})"
