"""A wheel built from this checkout contains the model, runs from an empty folder, and is installed by pip, pipx and uv."""

from __future__ import annotations

import ensurepip
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import local_index

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheels = tmp_path_factory.mktemp("wheels")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", wheels, REPOSITORY],
        check=True,
    )  # fmt: skip
    (wheel,) = wheels.glob("tui_llm-*.whl")
    return wheel


def test_the_wheel_runs_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
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


@pytest.fixture(scope="module")
def index(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("index")
    local_index.fill(folder, wheel)
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")  # pipx wants to upgrade it
    shutil.rmtree(folder / "simple" / "pip", ignore_errors=True)
    (folder / "simple" / "pip").mkdir()
    shutil.copy(pip, folder / "simple" / "pip")
    with local_index.served(folder) as address:
        yield address


def run(*words: str | Path, environment: dict[str, str], cwd: Path) -> str:
    done = subprocess.run(words, env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def tool(name: str) -> str:
    """The path of an installer, from the extra `test`."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not installed: pip install -e '.[test]' brings it")
    return found


@pytest.mark.parametrize("installer", ["pip", "pipx install", "uv tool install", "uvx"])
def test_each_installer_installs_it_from_an_index(installer: str, index: str, home: Path, tmp_path: Path) -> None:
    """All requirements are resolved and installed from a local index; nothing is fetched from elsewhere."""
    bin, empty = tmp_path / "bin", tmp_path / "empty"
    empty.mkdir()
    own = ("PIP_", "UV_", "PIPX_", "PYTHON", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)} | {
        "HOME": str(tmp_path), "TUI_LLM_HOME": str(home), "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1", "UV_DEFAULT_INDEX": index, "UV_NO_CONFIG": "1",
        "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never", "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(bin), "PIPX_HOME": str(tmp_path / "pipx"),
        "PIPX_BIN_DIR": str(bin), "PIPX_DEFAULT_PYTHON": sys.executable, "USE_EMOJI": "0",
    }  # fmt: skip
    command: tuple[str | Path, ...] = (bin / "tui-llm",)
    if installer == "pip":
        python = tmp_path / "venv/bin/python"
        run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", environment=environment, cwd=empty)
        pip = (sys.executable, "-m", "pip", "--python", python)
        run(*pip, "install", "-q", "tui-llm", environment=environment, cwd=empty)
        command = (tmp_path / "venv/bin/tui-llm",)
    elif installer == "uvx":
        command = (tool("uvx"), "--quiet", "tui-llm")
    else:
        name, *words = installer.split()
        run(tool(name), *words, "tui-llm", environment=environment, cwd=empty)
    (project,) = [
        line for line in (REPOSITORY / "pyproject.toml").read_text().splitlines() if line.startswith("version")
    ]
    version = run(*command, "--version", environment=environment, cwd=empty)
    assert version.split() == ["tui-llm", project.split('"')[1]]
    out = run(*command, "tokens", "Once upon a time", "--json", environment=environment, cwd=empty)
    assert json.loads(out)["count"] == 4
    assert not list(empty.iterdir()), "nothing is left where it ran"
