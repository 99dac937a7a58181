"""Shell completion: a real bash completes commands, options, values and names; zsh and fish parse their scripts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tui_llm.cli import main
from tui_llm.commands.completion import NAMES
from tui_llm.common import paths

ASK = """
tui-llm() { "$PYTHON" -m tui_llm "$@"; }
source "$SCRIPT"
read -r _ _ _ _ function _ <<< "$(complete -p tui-llm)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMPREPLY=()
"$function"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    file = tmp_path / f"completion.{shell}"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    return file


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_a_real_bash_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCRIPT", str(script("bash", tmp_path, capsys)))
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    (tmp_path / "naked.txt").write_text("x")
    for words, expected in {
        ("tok",): {"tokens"},
        ("models", "pu"): {"pull"},
        ("tokens", "--tok"): {"--tokenizer"},
        ("logits", "--model", "na"): {"nano", "naked.txt"},
        ("tokens", "x", "--tokenizer", "o2"): {"o200k_base"},
        ("train", "sto"): {"stories"},
        ("logits", "x", "--device", "c"): {"cpu", "cuda"},
        ("learn", "x", "--optimizer", "a"): {"adamw"},
    }.items():
        done = subprocess.run(["bash", "-c", ASK, "bash", "tui-llm", *words], cwd=tmp_path, capture_output=True, text=True)  # fmt: skip
        assert set(done.stdout.split()) == expected, (words, done.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_parses_its_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(shell, tmp_path, capsys)
    text = file.read_text(encoding="utf-8")
    for word in ("tokens", "tokenizer", "completion models", "completion runs", "adamw"):
        assert word in text
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_that_a_shell_could_misread_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("fine", "$(id)", "a b", "x;y", "esc\x1b"):
        shutil.copytree(paths.shipped_models_dir() / "nano", paths.models_dir() / name)
    assert main(["completion", "models"]) == 0
    assert capsys.readouterr().out.split() == ["fine", "nano"]


@pytest.mark.parametrize("what", NAMES)
def test_completing_names_imports_nothing_slow(what: str) -> None:
    code = f"import sys; from tui_llm.cli import main; main(['completion', '{what}']); assert not {{'torch', 'textual', 'shtab'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_shtab_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err
    assert main(["completion", "elvish"]) == 2
