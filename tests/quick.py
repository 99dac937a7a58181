"""`python -m tests --quick`: which tests a change touches, nearest first, within a budget of seconds.

A test file is touched if it changed, or if it imports what changed, directly or through other modules. The fewer imports lie
between, the earlier it runs. A changed file outside the package and the tests touches the files that mention its name, or its folder's, in quotes.
"""

from __future__ import annotations

import ast
import functools
import subprocess
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.durations import measured

BUDGET = 20.0
"""Seconds of tests, added up over both processes; with start-up and the other checks this stays under 45 s."""

UNMEASURED = 1.0
"""Seconds assumed for a test function that has not run in this checkout."""

ALWAYS = "tests/test_walls.py"
"""Runs whatever changed, so it is not chosen."""

BY_NAME = {
    "tui_llm/commands/shared/parser.py": "tui_llm/commands/*.py",
    "tui_llm/engine.py": "tui_llm/instruments/*/answer.py",
    "tui_llm/tui/keymap.py": "tui_llm/tui/instruments/*.py",
}
"""Modules that import others by a computed name, which the import graph does not show."""


@dataclass
class Choice:
    run: list[str] = field(default_factory=list)
    """Test files and test functions, as pytest takes them."""

    left_out: list[str] = field(default_factory=list)
    """The files of which not every test runs; those of which some run with how many don't."""


def git(repository: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


def changed_files(repository: Path) -> set[str]:
    """Returns the files that differ from the merge base with main, committed or not, and the untracked ones."""
    bases = (git(repository, "merge-base", "HEAD", main) for main in ("main", "origin/main", "HEAD"))
    (base,) = next(filter(None, bases), ["HEAD"])
    return {
        *git(repository, "diff", "--name-only", "--no-renames", base),
        *git(repository, "ls-files", "--others", "--exclude-standard"),
    }


def names_imported(tree: ast.Module) -> set[str]:
    """Returns the dotted names that a file may import; `from a import b` gives `a` and `a.b`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def import_graph(repository: Path) -> dict[str, set[str]]:
    """Returns which files each file of the package and of the tests imports, as paths in the repository."""
    import grimp

    graph = grimp.build_graph("tui_llm", cache_dir=str(repository / ".import_linter_cache"))
    paths = {module: path_of(repository, module) for module in graph.modules}
    imports = {
        path: {paths[other] for other in graph.find_modules_directly_imported_by(module)}
        for module, path in paths.items()
    }
    for importer, pattern in BY_NAME.items():
        imports[importer] |= {str(path.relative_to(repository)) for path in repository.glob(pattern)}
    return imports | imports_of_tests(repository, paths)


def path_of(repository: Path, module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (repository / path).is_dir() else f"{path}.py"


def imports_of_tests(repository: Path, package: Mapping[str, str]) -> dict[str, set[str]]:
    """Tests import the package, `tests.NAME`, and helpers by their bare name, and depend on the conftest.py beside them.

    tests/conftest.py is left out: a change to what all tests share touches none of them in particular.
    """
    files = {path: str(path.relative_to(repository)) for path in sorted((repository / "tests").rglob("*.py"))}
    known = {**package, **{path.stem: name for path, name in files.items()}}
    known |= {name.removesuffix(".py").replace("/", "."): name for name in files.values()}
    imports = {}
    for path, name in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports[name] = {known[one] for one in names_imported(tree) if one in known}
        if (beside := path.with_name("conftest.py")) in files and name.count("/") > 1:
            imports[name] |= {files[beside]} - {name}
    return imports


def distances(imports: Mapping[str, set[str]], changed: Iterable[str]) -> dict[str, int]:
    """Returns, for each file that depends on a changed one, the length of the shortest chain of imports to it."""
    importers: dict[str, set[str]] = {}
    for importer, others in imports.items():
        for other in others:
            importers.setdefault(other, set()).add(importer)
    found = dict.fromkeys(changed, 0)
    queue = deque(found)
    while queue:
        path = queue.popleft()
        for importer in importers.get(path, set()) - found.keys():
            found[importer] = found[path] + 1
            queue.append(importer)
    return found


def is_test(path: str) -> bool:
    return path.startswith("tests/") and Path(path).name.startswith("test_") and path.endswith(".py")


def touched(repository: Path, imports: Mapping[str, set[str]], changed: set[str]) -> list[str]:
    """Returns the test files that a change touches, nearest first; of equally near ones, those that name it most."""
    there = {path for path in imports if (repository / path).is_file()}

    @functools.cache
    def text(path: str) -> str:
        return (repository / path).read_text(encoding="utf-8")

    words = {word for path in map(Path, changed) for word in (path.stem, path.parent.name) if word}

    def mentions(path: str) -> tuple[int, int]:
        return sum(word in Path(path).stem for word in words), sum(text(path).count(f'"{word}"') for word in words)

    other = [Path(path) for path in changed if not path.endswith(".py") or path.startswith("scripts/")]
    signs = {f'"{word}"' for path in other for word in (path.name, path.parent.name)} - {'""'}
    mentioning = {path: {sign for sign in signs if sign in text(path)} for path in there} if signs else {}
    near = distances({path: imports[path] | mentioning.get(path, set()) for path in there}, changed | signs)
    tests = [path for path in near if is_test(path) and path in there and path != ALWAYS]
    closeness = {path: (near[path], *(-count for count in mentions(path)), path) for path in tests}
    return sorted(tests, key=closeness.__getitem__)


def functions(path: Path) -> list[str]:
    """Returns the names of a file's test functions."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    return [
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


def within(budget: float, tests: Mapping[str, list[str]], seconds: Mapping[str, float]) -> Choice:
    """Chooses whole files while they fit into the budget; of a file that doesn't fit, the shortest tests that do."""
    choice = Choice()
    for path, names in tests.items():
        costs = {f"{path}::{name}": seconds.get(f"{path}::{name}", UNMEASURED) for name in names}
        if (cost := sum(costs.values())) <= budget:
            choice.run.append(path)
            budget -= cost
            continue
        fitting = []
        for test in sorted(costs, key=lambda test: costs[test]):
            if costs[test] > budget:
                break
            fitting.append(test)
            budget -= costs[test]
        choice.run += fitting
        missing = f" ({len(costs) - len(fitting)} of {len(costs)} tests)" if fitting else ""
        choice.left_out.append(path + missing)
    return choice


def choose(repository: Path, budget: float = BUDGET) -> Choice:
    """Returns the tests that the working tree's change touches, as far as the budget allows."""
    paths = touched(repository, import_graph(repository), changed_files(repository))
    return within(budget, {path: functions(repository / path) for path in paths}, measured(repository))
