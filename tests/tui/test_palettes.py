"""The palettes for the colour-blind: their colours stay apart as people with each deficiency see them.

The simulation: Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE TVCG
15 (6), 2009, table 1, severity 1.0, on linear RGB. Distances: CIE 1976 ΔE*ab (sRGB, D65); 2.3 is just noticeable (Mahy 1994).
"""

from __future__ import annotations

import itertools
import math

import pytest
from helpers import answered, make_app
from test_contrast import LEAST, contrast, hard_to_read
from textual.color import Color
from textual.theme import Theme

from tui_llm.tui.kit.loss_shade import LEVELS
from tui_llm.tui.kit.themes import DARK, PALETTES, ROLES, colour_blind
from tui_llm.tui.kit.widgets.lines import SHADES

Triple = tuple[float, float, float]
MACHADO: dict[str, tuple[Triple, Triple, Triple]] = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
# colorspacious 1.1.2: cspace_convert to CIELab, and from sRGB1+CVD (severity 100) to sRGB1-linear
COLORSPACIOUS: dict[str, tuple[Triple, dict[str, Triple]]] = {
    "#CC6633": ((54.635, 36.916, 46.122), {"protanopia": (0.22503, 0.1769, 0.02609),
        "deuteranopia": (0.3286, 0.26005, 0.03064), "tritanopia": (0.74201, 0.08121, 0.10478)}),
    "#56B4E9": ((69.826, -12.017, -34.774), {"protanopia": (0.32765, 0.45037, 0.8349),
        "deuteranopia": (0.24123, 0.37164, 0.80799), "tritanopia": (-0.06387, 0.53781, 0.56362)}),
}  # fmt: skip
WORDS_APART, LEVELS_APART = 12.0, 4.0  # least ΔE*ab between two words or series, and between two neighbouring levels
BLENDS = (0.06, 0.18, 0.32, 0.48, 0.68, 0.90)  # app.tcss: $warning at each level of a token's shade


def linear(color: Color) -> Triple:
    red, green, blue = (
        part / 255 / 12.92 if part <= 0.04045 * 255 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in color.rgb
    )
    return red, green, blue


def seen(color: Color, deficiency: str) -> Triple:
    """The linear RGB that a person with the deficiency sees; with "" the color itself."""
    rgb = linear(color)
    if not deficiency:
        return rgb
    red, green, blue = (
        min(1.0, max(0.0, sum(weight * part for weight, part in zip(row, rgb, strict=True))))
        for row in MACHADO[deficiency]
    )
    return red, green, blue


def lab(rgb: Triple) -> Triple:
    """CIELAB of linear sRGB: https://www.w3.org/TR/css-color-4/#lab-to-lch, with D65 as white."""
    rows = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
    x, y, z = (
        sum(weight * part for weight, part in zip(row, rgb, strict=True)) / white
        for row, white in zip(rows, (0.95047, 1.0, 1.08883), strict=True)
    )
    fx, fy, fz = (
        part ** (1 / 3) if part > (6 / 29) ** 3 else part / (3 * (6 / 29) ** 2) + 4 / 29 for part in (x, y, z)
    )
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def apart(one: Color, other: Color, deficiency: str) -> float:
    return math.dist(lab(seen(one, deficiency)), lab(seen(other, deficiency)))


def test_the_simulation_keeps_grey_and_confuses_what_it_should() -> None:
    for matrix in MACHADO.values():
        assert all(abs(sum(row) - 1) < 1e-5 for row in matrix)  # grey stays grey
    red, green = Color.parse("#B05050"), Color.parse("#7A7A30")
    for deficiency in ("protanopia", "deuteranopia"):
        assert apart(red, green, deficiency) < 0.7 * apart(red, green, "")
    for hex, (cielab, simulated) in COLORSPACIOUS.items():
        color = Color.parse(hex)
        assert lab(linear(color)) == pytest.approx(cielab, abs=0.01)
        for deficiency, rgb in simulated.items():
            assert seen(color, deficiency) == pytest.approx([max(0, part) for part in rgb], abs=1e-4)


def variables(theme: Theme) -> dict[str, str]:
    return {**theme.to_color_system().generate(), **theme.variables}


@pytest.mark.parametrize("theme", colour_blind(), ids=lambda theme: theme.name)
def test_words_and_series_stay_apart_and_have_contrast(theme: Theme) -> None:
    colors, deficiency = variables(theme), theme.name.rpartition("-")[0]
    words = {role: Color.parse(colors[f"text-{role}"]) for role in ROLES}
    words["foreground"] = Color.parse(colors["foreground"])  # plain text, the third level of a loss
    for (one, first), (other, second) in itertools.combinations(words.items(), 2):
        for who in (deficiency, ""):
            assert apart(first, second, who) >= WORDS_APART, (one, other, who)
    background = Color.parse(colors["background"])
    for role in ROLES:
        for behind in (background, Color.parse(colors["panel"]), background + Color.parse(colors[f"{role}-muted"])):
            assert contrast(words[role], behind) >= LEAST, (role, behind)


@pytest.mark.parametrize("theme", colour_blind(), ids=lambda theme: theme.name)
def test_neighbouring_levels_of_surprisal_and_of_loss_stay_apart(theme: Theme) -> None:
    colors, deficiency = variables(theme), theme.name.rpartition("-")[0]
    background, warning = Color.parse(colors["background"]), Color.parse(colors["warning"])
    surprisal = [background.blend(warning, share) for share in BLENDS]
    assert len(surprisal) == SHADES
    for one, other in itertools.pairwise(surprisal):
        assert apart(one, other, deficiency) >= LEVELS_APART

    def muted(role: str) -> Color:
        return background + Color.parse(colors[f"{role}-muted"])

    def word(role: str) -> Color:
        return Color.parse(colors[f"text-{role}"])

    losses = [  # text and background of each level: tui_llm/tui/runs/batch.py
        (word("success"), muted("success")), (word("success"), background), (Color.parse(colors["foreground"]), background),
        (word("warning"), background), (word("warning"), muted("warning")), (word("error"), muted("error")),
    ]  # fmt: skip
    assert len(losses) == LEVELS
    for (text, ground), (next_text, next_ground) in itertools.pairwise(losses):
        assert max(apart(text, next_text, deficiency), apart(ground, next_ground, deficiency)) >= LEVELS_APART


async def test_z_goes_through_the_palettes_and_d_keeps_the_palette() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "1")
        assert app.theme == DARK
        for palette in (*PALETTES, "textual"):
            await pilot.press("Z")
            await pilot.pause()
            assert app.theme == f"{palette}-dark" and app.theme in app.available_themes
            await pilot.press("d")
            assert app.theme == f"{palette}-light"
            await pilot.press("d")


@pytest.mark.parametrize("keys", ["1 k", "2 C", "3 p", "R"])
async def test_screens_can_be_read_in_every_palette(keys: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", *keys.split())
        await pilot.pause()
        for theme in colour_blind():
            app.theme = theme.name
            await pilot.pause()
            await pilot.pause()
            assert not hard_to_read(app), (theme.name, hard_to_read(app))
