"""Turn an asciicast v2 whose events write whole lines into an animated SVG: CSS keyframes, no script, no fonts to load.

termtosvg and svg-term do this too, but neither has had a release since 2020. rich, which Textual brings along, reads the
escape sequences. `python scripts/animation.py` writes such casts; "m" events (markers) become the captions.

A run of text that stays the same in frames a to b is drawn once, in a group of the class `fa-b`, so a file holds what
changes and no more.
"""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from rich.ansi import AnsiDecoder
from rich.cells import cell_len
from rich.color import Color, blend_rgb
from rich.color_triplet import ColorTriplet
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

LINE = re.compile(r"\x1b\[(\d+);1H(.*?)(?=\x1b\[\d+;1H|\Z)", re.DOTALL)
SPACES = re.compile(r"\S+(?: \S+)*")  # a run has single spaces only: XML would collapse more
CELL, ROW, FONT = 9.6, 19.5, 16.0  # units of the viewBox
MARGIN, CAPTION = 10.0, 34.0
BACKGROUND, INK = "#121212", "#e0e0e0"
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,Liberation Mono,monospace"
DECORATIONS = {"bold": "font-weight:bold", "italic": "font-style:italic"}


@dataclass(frozen=True)
class Frame:
    """What a terminal shows from `begin` on, in seconds."""

    begin: float
    lines: tuple[Text, ...]
    caption: str


@dataclass(frozen=True)
class Part:
    """A piece of a frame: text, or the background of a piece of a line."""

    row: int
    column: int
    cells: int
    text: str  # "" is a background
    css: str


def frames(cast: str) -> tuple[list[Frame], float]:
    """Returns the frames of a cast, one for each output event, and the time at which the last one ends."""
    header, *events = (json.loads(line) for line in cast.splitlines())
    lines, caption, end = [Text()] * header["height"], "", 0.0
    made: list[Frame] = []
    for end, kind, data in events:
        if kind == "m":
            caption = data
        elif kind == "o" and data:  # the last event may only say when the last frame ends
            for number, line in LINE.findall(data):
                lines[int(number) - 1] = AnsiDecoder().decode_line(line)
            made.append(Frame(end, tuple(lines), caption))
    return made, end


def _triplet(color: Color | None, default: str) -> ColorTriplet:
    if color is None or color.is_default:
        return Color.parse(default).get_truecolor()
    return color.get_truecolor(MONOKAI)


def _css(style: Style) -> tuple[str, str]:
    """Returns the CSS of the text and the fill of its background."""
    ink, back = _triplet(style.color, INK), _triplet(style.bgcolor, BACKGROUND)
    if style.reverse:
        ink, back = back, ink
    if style.dim:
        ink = blend_rgb(ink, back, 0.5)
    css = [f"fill:{ink.hex}", *(css for name, css in DECORATIONS.items() if getattr(style, name))]
    lines = [name for on, name in ((style.underline, "underline"), (style.strike, "line-through")) if on]
    return ";".join(css + [f"text-decoration:{' '.join(lines)}"] * bool(lines)), f"fill:{back.hex}"


def _parts(frame: Frame) -> Iterator[Part]:
    console = Console(file=io.StringIO(), width=1000, color_system="truecolor", force_terminal=True)
    for row, line in enumerate(frame.lines):
        column = 0
        for segment in line.render(console):
            css, back = _css(segment.style or Style())
            cells = cell_len(segment.text)
            if back != f"fill:{BACKGROUND}" and cells:
                yield Part(row, column, cells, "", back)
            for found in SPACES.finditer(segment.text):
                at = column + cell_len(segment.text[: found.start()])
                yield Part(row, at, cell_len(found[0]), found[0], css)
            column += cells


def _spans(shown: Sequence[Frame]) -> dict[tuple[int, int], list[Part]]:
    """Returns the parts by the first and the last frame in which they stay the same."""
    spans: dict[tuple[int, int], list[Part]] = defaultdict(list)
    since: dict[Part, int] = {}
    for at, frame in enumerate(shown):
        now = dict.fromkeys(_parts(frame))
        for part in [one for one in since if one not in now]:
            spans[since.pop(part), at - 1].append(part)
        for part in now:
            since.setdefault(part, at)
    for part, first in since.items():
        spans[first, len(shown) - 1].append(part)
    return spans


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _timing(first: int, last: int, shown: Sequence[Frame], end: float) -> str:
    """Returns the rules that show a group from its first frame to the end of its last one."""
    name, steps = f"f{first}-{last}", ["0%{visibility:hidden}"] * bool(first)
    steps.append(f"{_number(100 * shown[first].begin / end)}%{{visibility:visible}}")
    if last + 1 < len(shown):
        steps.append(f"{_number(100 * shown[last + 1].begin / end)}%{{visibility:hidden}}")
    return f"@keyframes {name}{{{''.join(steps)}}}.{name}{{animation-name:{name}}}"


class _Drawing:
    """Collects the elements of the SVG; each distinct CSS becomes a class."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}

    def element(self, part: Part) -> str:
        name = self.classes.setdefault(part.css, f"c{len(self.classes)}")
        x, width = _number(MARGIN + part.column * CELL), _number(part.cells * CELL)
        if not part.text:
            # A little taller than a row: no gap between two rows
            return f'<rect x="{x}" y="{_number(MARGIN + part.row * ROW)}" width="{width}" height="{ROW + 0.3}" class="{name}"/>'
        y = _number(MARGIN + part.row * ROW + FONT - 1)
        return f'<text x="{x}" y="{y}" textLength="{width}" class="{name}">{escape(part.text)}</text>'


def _group(first: int, last: int, count: int, inside: str) -> str:
    still = " still" if last == count - 1 else ""  # the last frame is the picture without animation
    return f'<g class="f{first}-{last}{still}">{inside}</g>'


def svg(cast: str, title: str, description: str) -> str:
    """Returns the animated picture. Where animation is off or not wanted, it shows the last frame."""
    shown, end = frames(cast)
    header = json.loads(cast.splitlines()[0])
    width = header["width"] * CELL + 2 * MARGIN
    height = header["height"] * ROW + 2 * MARGIN
    spans, drawing, count = _spans(shown), _Drawing(), len(shown)
    layers: list[str] = []
    for texts in (False, True):  # backgrounds first
        for (first, last), parts in sorted(spans.items()):
            inside = "".join(drawing.element(part) for part in parts if bool(part.text) is texts)
            if inside:
                layers.append(_group(first, last, count, inside))
    intervals, begin = set(spans), 0
    for at in range(1, count + 1):
        if at == count or shown[at].caption != shown[begin].caption:
            line = f'<text x="{_number(width / 2)}" y="{_number(height + 17)}" class="caption">{escape(shown[begin].caption)}</text>'
            layers.append(_group(begin, at - 1, count, line))
            intervals.add((begin, at - 1))
            begin = at
    rules = [f".{name}{{{css}}}" for css, name in drawing.classes.items()]
    rules += [_timing(first, last, shown, end) for first, last in sorted(intervals)]
    style = (
        f"text{{font-family:{FONTS};font-size:{FONT}px}}"
        f".caption{{fill:{INK};text-anchor:middle;font-family:system-ui,sans-serif;font-size:19px}}"
        f"g{{visibility:hidden;animation:none {_number(end)}s step-end infinite}}"
        ".still{visibility:visible}"
        + "".join(rules)
        + "@media (prefers-reduced-motion:reduce){g{animation:none!important}}"
    )
    size = f"0 0 {_number(width)} {_number(height + CAPTION)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" role="img" aria-label={quoteattr(title)}>'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc><style>{style}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>' + "\n".join(layers) + "</svg>\n"
    )
