"""The animated picture of the README: its story is played again, without the training, and compared with the picture."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from rich.text import Text

from tui_llm.api import open_model
from tui_llm.common.numbers import percent
from tui_llm.tui.kit import format as fmt

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURE = REPOSITORY / "docs" / "animation.svg"
SVG = "{http://www.w3.org/2000/svg}"
BEGUN, LAST = "Once upon a time, there was a litt", "le"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    names = ("cast_svg", "animation")
    first, second = (importlib.import_module(name) for name in names)
    yield first, second
    for name in names:
        sys.modules.pop(name, None)


def shown(svg: str) -> list[str]:
    """Returns the text of each frame of a picture, line by line."""
    frames: dict[int, list[tuple[float, float, str]]] = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        first, last = map(int, group.attrib["class"].split()[0][1:].split("-"))
        for text in group.iter(f"{SVG}text"):
            for at in range(first, last + 1):
                frames.setdefault(at, []).append((float(text.attrib["y"]), float(text.attrib["x"]), text.text or ""))
    return [" ".join(text for _, _, text in sorted(frames[at])) for at in sorted(frames)]


def test_the_picture_is_small_and_asks_for_nothing() -> None:
    svg = PICTURE.read_text(encoding="utf-8")
    assert len(svg.encode()) < 2_000_000
    root = ElementTree.fromstring(svg)  # well-formed
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "desc", "style", "rect", "g", "text"
    }  # fmt: skip
    for element in root.iter():
        assert not [name for name in element.attrib if "href" in name or name.startswith("on") or name == "src"]
    style = "".join(element.text or "" for element in root.iter(f"{SVG}style"))
    assert "url(" not in style and "@import" not in style and "@font-face" not in style
    assert "prefers-reduced-motion" in style and "infinite" in style
    assert root.findtext(f"{SVG}title") and root.findtext(f"{SVG}desc")
    alt = re.search(r"!\[([^\]]+)\]\(docs/animation\.svg\)", (REPOSITORY / "README.md").read_text())
    assert alt is not None and len(alt[1]) > 20


def test_the_picture_ends_with_a_finished_run() -> None:
    last = shown(PICTURE.read_text(encoding="utf-8"))[-1]
    assert "finished" in last and "100 %" in last and "validation" in last


async def test_the_story_shows_the_models_numbers_and_so_does_the_picture(
    scripts: tuple[ModuleType, ModuleType],
) -> None:
    """Detects a change of the screen or the shipped model that makes the picture outdated."""
    cast_svg, animation = scripts
    made = shown(cast_svg.svg(await animation.record(LAST, BEGUN, training=False), "title", "description"))
    kept = shown(PICTURE.read_text(encoding="utf-8"))
    lab = open_model("nano", "cpu")
    for frames in (made, kept):
        reading = lab.read(animation.TYPED)
        assert reading.distribution is not None
        rows = reading.distribution.candidates[:2]
        typed = [frame for frame in frames if animation.TYPED in frame]
        assert typed, "the typed prompt is not in the picture"
        for row in rows:
            assert any(percent(row.raw_probability) in frame for frame in typed), "run: python scripts/animation.py"
        loss = lab.read(animation.TYPED, target=rows[1].id).loss
        assert loss is not None
        assert any(f"{fmt.number(loss.mean)} nats" in frame for frame in typed), "run: python scripts/animation.py"


def test_a_run_of_text_is_drawn_once_for_the_frames_that_have_it(scripts: tuple[ModuleType, ModuleType]) -> None:
    """By hand: two lines, three frames; what stays is one element, and each frame's text is read back."""
    cast_svg, _ = scripts
    events: list[object] = [
        {"version": 2, "width": 20, "height": 2},
        [0.0, "m", "one"],
        [0.0, "o", "\x1b[1;1Ha <b>  same\x1b[2;1H\x1b[1mfirst\x1b[0m"],
        [1.0, "o", "\x1b[2;1Hsecond"],
        [2.0, "m", "two"],
        [2.0, "o", "\x1b[2;1Hfirst"],
        [3.0, "o", ""],
    ]
    cast = "".join(json.dumps(event) + "\n" for event in events)
    frames, end = cast_svg.frames(cast)
    assert [frame.begin for frame in frames] == [0.0, 1.0, 2.0] and end == 3.0
    assert all(isinstance(line, Text) for line in frames[0].lines)
    svg = cast_svg.svg(cast, "title & more", "description")
    assert svg.count(">same<") == 1 and svg.count("second") == 1
    assert shown(svg) == ["a <b> same first one", "a <b> same second one", "a <b> same first two"]
    # "second" is seen in the second of three seconds
    assert "{0%{visibility:hidden}33.33%{visibility:visible}66.67%{visibility:hidden}}" in svg
