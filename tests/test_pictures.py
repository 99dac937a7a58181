"""The pictures in README and docs: each is drawn by the script and shown on a page; one is drawn again and compared."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("picture", REPOSITORY / "scripts" / "picture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "picture", module)  # `dataclass` looks the module up
    spec.loader.exec_module(module)
    return module


def words(svg: str) -> list[str]:
    """Returns the text in a picture, without durations."""
    shown = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg)).replace("&#160;", " ")
    return re.sub(r"fed \d+ tokens? in [\d.,]+ m?s", "", shown).split()


def test_every_picture_is_drawn_by_the_script_and_shown_on_a_page(script: ModuleType) -> None:
    others = {
        "animation.svg",
        "ladder.svg",
    }  # by scripts/animation.py, and by the `tui-llm ladder … --out` that the page states
    drawn = {f"{one.name}.svg" for one in script.PICTURES} | others
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    shown = {Path(found).name for page in pages for found in re.findall(r"\(([^)\s]+\.svg)\)", page.read_text())}
    assert drawn == {path.name for path in (REPOSITORY / "docs").glob("*.svg")} == shown


async def test_a_picture_drawn_again_shows_the_same(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detects a change of the screen or the shipped model that makes the pictures outdated."""
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(script, "REPOSITORY", tmp_path)
    (picture,) = (one for one in script.PICTURES if one.name == "tokens")
    await script.draw(picture)
    made = (tmp_path / "docs" / "tokens.svg").read_text()
    assert len(words(made)) > 40
    assert words(made) == words((REPOSITORY / "docs" / "tokens.svg").read_text()), "run: python scripts/picture.py"
