"""`python -m tests`: the second run of the numeric tests, and what `--quick` chooses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import __main__ as checks
from tests import quick
from tests.__main__ import AVX2, HERE, NUMERIC, STATIC, capability
from tests.durations import KEY, function_of, measured


def test_the_numeric_tests_are_there() -> None:
    assert all((HERE / path).exists() for path in NUMERIC)


def test_other_kernels_can_be_chosen() -> None:
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this CPU has no AVX-512: there is no second run")
    assert capability(AVX2) == "AVX2"


@pytest.mark.parametrize(("first", "again"), [(0, 0), (3, 0), (0, 4), (3, 4)])
def test_the_second_run_goes_on_beside_the_first_and_counts(
    first: int, again: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def command(name: str, code: int) -> tuple[str, ...]:
        return (
            sys.executable,
            "-c",
            f"import os; print({name!r}, os.environ.get('ATEN_CPU_CAPABILITY')); raise SystemExit({code})",
        )

    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(checks, "capability", lambda: "AVX512")
    monkeypatch.setattr(checks, "PYTEST", command("FIRST", first))
    monkeypatch.setattr(checks, "BESIDE", command("AGAIN", again))
    code = 0
    try:
        checks.run_all()
    except SystemExit as error:
        code = error.code
    assert code == (first or again)
    out = capfd.readouterr().out
    assert "\nFIRST None\n" in out and ("\nAGAIN avx2\n" in out) == (not first)
    assert first or out.index("\nFIRST") < out.index("\nAGAIN")


def test_the_second_run_ends_with_the_first_if_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = (sys.executable, "-c", "import threading; threading.Event().wait()")
    with pytest.raises(SystemExit), checks.beside(endless, subprocess.DEVNULL) as process:
        checks.run((sys.executable, "-c", "raise SystemExit(1)"))
    assert process.returncode is not None and process.returncode < 0


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_changed_files_are_those_since_main_committed_or_not(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    for name in ("same.py", "committed.py", "edited.py", "deleted.py"):
        (tmp_path / name).write_text("a = 1\n")
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "checkout", "-q", "-b", "branch")
    (tmp_path / "committed.py").write_text("a = 2\n")
    git(tmp_path, "commit", "-q", "-a", "-m", "second")
    (tmp_path / "edited.py").write_text("a = 2\n")
    (tmp_path / "deleted.py").unlink()
    (tmp_path / "new.py").write_text("")
    (tmp_path / "ignored.py").write_text("")
    assert quick.changed_files(tmp_path) == {"committed.py", "edited.py", "deleted.py", "new.py"}


def test_without_git_nothing_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert quick.changed_files(tmp_path) == set()


def test_distance_is_the_shortest_chain_of_imports() -> None:
    imports = {"c": {"b"}, "b": {"a"}, "a": set(), "d": {"b", "a"}, "other": {"c"}, "unrelated": set()}
    assert quick.distances(imports, {"a"}) == {"a": 0, "b": 1, "d": 1, "c": 2, "other": 3}


def written(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_touched_files_come_nearest_first_and_then_by_name(tmp_path: Path) -> None:
    imports = {
        "p/loss.py": set(),
        "p/app.py": {"p/loss.py"},
        "tests/helpers.py": {"p/app.py"},
        "tests/test_a.py": {"p/loss.py"},
        "tests/test_far.py": {"tests/helpers.py"},
        "tests/test_loss.py": {"p/loss.py"},
        "tests/test_other.py": set(),
        "tests/test_walls.py": {"p/loss.py"},
    }
    written(tmp_path, dict.fromkeys(imports, ""))
    assert quick.touched(tmp_path, imports, {"p/loss.py"}) == [
        "tests/test_loss.py",
        "tests/test_a.py",
        "tests/test_far.py",
    ]
    assert quick.touched(tmp_path, imports, {"tests/test_other.py"}) == ["tests/test_other.py"]
    assert quick.touched(tmp_path, imports, {"tests/test_deleted.py"}) == []


def test_a_page_touches_the_tests_that_name_it_or_its_folder(tmp_path: Path) -> None:
    imports = {"tests/test_page.py": set(), "tests/test_folder.py": set(), "tests/test_c.py": set()}
    texts = ('"README.md"', 'HERE / "docs"', "README")
    written(tmp_path, dict(zip(imports, texts, strict=True)))
    assert quick.touched(tmp_path, imports, {"README.md"}) == ["tests/test_page.py"]
    assert quick.touched(tmp_path, imports, {"docs/a.md"}) == ["tests/test_folder.py"]


def test_whole_files_are_chosen_while_they_fit_and_then_the_shortest_tests() -> None:
    tests = {"a": ["x", "y"], "b": ["slow", "quick", "middle"], "c": ["z"]}
    seconds = {"a::x": 1.0, "a::y": 2.0, "b::slow": 9.0, "b::quick": 0.5, "b::middle": 1.0, "c::z": 0.25}
    choice = quick.within(5.0, tests, seconds)
    assert choice.run == ["a", "b::quick", "b::middle", "c"]
    assert choice.left_out == ["b (1 of 3 tests)"]


def test_a_test_without_a_measurement_counts_as_long() -> None:
    choice = quick.within(2 * quick.UNMEASURED, {"a": ["x", "y"], "b": ["z"]}, {})
    assert choice.run == ["a"]
    assert choice.left_out == ["b"]


def test_durations_are_those_of_pytests_cache(tmp_path: Path) -> None:
    assert measured(tmp_path) == {}
    assert function_of("tests/test_a.py::test_b[x-[1]]") == "tests/test_a.py::test_b"
    path = tmp_path / ".pytest_cache" / "v" / KEY
    path.parent.mkdir(parents=True)
    path.write_text('{"tests/test_a.py::test_b": 0.5}')
    assert measured(tmp_path) == {"tests/test_a.py::test_b": 0.5}
    path.write_text("{")
    assert measured(tmp_path) == {}


def test_this_repositorys_graph_leads_from_modules_to_their_tests() -> None:
    pytest.importorskip("grimp", reason="import-linter is not installed (extra `dev`)")
    imports = quick.import_graph(HERE)

    def touched(*changed: str) -> list[str]:
        return quick.touched(HERE, imports, set(changed))

    assert touched("tui_llm/llm/predict/loss.py")[0] == "tests/llm/test_loss.py"
    assert touched("tests/fake_hub.py") != []
    assert "tests/tui/test_lab.py" in touched("tests/tui/helpers.py")
    assert "tests/test_token_commands.py" in touched("tui_llm/commands/letters.py")
    assert "tests/test_readme.py" in touched("docs/training.md")
    assert len(touched("tui_llm/common/errors.py")) > 100


def test_pre_commit_calls_the_quick_checks() -> None:
    hook = (HERE / ".pre-commit-config.yaml").read_text()
    assert "entry: .venv/bin/python -m tests --quick\n" in hook
    assert "http" not in hook
    assert [Path(check[0]).name for check in STATIC] == ["ruff", "ruff", "mypy", "lint-imports"]
