"""An SVG as a PNG, through the first converter that is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tui_llm.common.errors import UserError

PATIENCE = 60  # seconds
NONE = "PNG needs a converter, and none is installed: install rsvg-convert (apt install librsvg2-bin, brew install librsvg) or cairosvg (pip install cairosvg), or write .svg"


def command(source: Path, target: Path) -> list[str] | None:
    """The command line that converts `source` to `target`; None without a converter."""
    rows = {
        "rsvg-convert": ["--zoom", "2", "--output", str(target), str(source)],
        "resvg": ["--zoom", "2", str(source), str(target)],
        "inkscape": [str(source), "--export-type=png", f"--export-filename={target}"],
        "magick": [str(source), f"png:{target}"],
    }
    if find_spec("cairosvg") is not None:
        return [sys.executable, "-m", "cairosvg", str(source), "-f", "png", "-s", "2", "-o", str(target)]
    return next(([found, *rest] for name, rest in rows.items() if (found := shutil.which(name))), None)


def converter() -> str:
    """The name of the converter. Raises `UserError`, which says what to install, if there is none."""
    found = command(Path("a.svg"), Path("a.png"))
    if found is None:
        raise UserError(NONE)
    return "cairosvg" if "cairosvg" in found else Path(found[0]).name


def convert(source: Path, target: Path) -> None:
    """Writes the picture of the SVG `source` to `target`. Raises `UserError`."""
    name, line = converter(), command(source, target)
    assert line is not None
    try:
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=PATIENCE)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{name} could not convert the picture: {error}; write .svg instead") from error
    if done.returncode or not target.is_file() or not target.stat().st_size:
        why = " ".join((done.stderr or done.stdout).split())[:200] or f"exit status {done.returncode}"
        raise UserError(f"{name} could not convert the picture: {why}; write .svg instead")
