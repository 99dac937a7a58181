"""A wheel built from this checkout contains the model and runs from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def test_the_wheel_runs_from_an_empty_folder(tmp_path: Path) -> None:
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", wheels, REPOSITORY],
        check=True,
    )  # fmt: skip
    (wheel,) = wheels.glob("tui_llm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    for needed in (
        "tui_llm/models/nano/model.safetensors",
        "tui_llm/models/nano/README.md",
        "tui_llm/tui/app.tcss",
        "tui_llm/instruments/guess/held_out.txt",
        "tui_llm/py.typed",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "models/"))]
    assert sum(info.file_size for info in zipfile.ZipFile(wheel).infolist()) < 40_000_000

    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "tui_llm", "logits", "Once upon a time, there was a little", "--json", "--top", "5"],
        cwd=empty, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "nano"
    where = subprocess.run(
        [sys.executable, "-c", "import tui_llm; print(tui_llm.__file__)"],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert str(site) in where.stdout
    assert not list(empty.iterdir()), "nothing is left where it ran"
