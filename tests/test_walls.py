"""The import rules: import-linter's contracts, and the modules that fresh processes import."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from tui_llm.cli import main
from tui_llm.commands.shared.parser import build_parser, names

REPOSITORY = Path(__file__).resolve().parents[1]


def modules_after(code: str) -> set[str]:
    """Returns the modules that a fresh process has imported after executing `code`."""
    script = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@lru_cache(None)
def tree(path: Path) -> ast.Module:
    """A module of the package or a script; several tests read all of them."""
    return ast.parse(path.read_text(encoding="utf-8"))


@lru_cache(None)
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree(path)))


HEAVY = {"torch", "textual", "transformers", "numpy", "tiktoken"}


def test_the_package_imports_neither_torch_nor_textual() -> None:
    assert not modules_after("import tui_llm") & HEAVY


def test_help_imports_neither_nor_what_is_slow_beside_argparse() -> None:
    code = "from tui_llm.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    slow = {
        "inspect",
        "dataclasses",
        "pathlib",
        "tui_llm.training.run.settings",
    }  # together as long as all else that --help does
    assert not modules_after(code) & (HEAVY | slow)


def test_a_command_imports_its_own_file_only() -> None:
    def commands(words: list[str] | None) -> set[str]:
        (choices,) = (action.choices for action in build_parser(words)._actions if action.dest == "command")
        return set(choices or ())

    assert commands(None) == set(names()) and commands([]) == set()
    for name in names():
        assert commands([name]) == {name}
        assert commands(["--model", "nano", name, "--help"]) == {name}
    assert commands(["--help", "tree"]) == commands(None)


def test_options_are_made_for_the_page_of_their_command_but_not_for_the_list_of_commands() -> None:
    def options(words: list[str]) -> set[str]:
        (choices,) = (action.choices for action in build_parser(words)._actions if action.dest == "command")
        assert isinstance(choices, dict)
        return {word for action in choices["tree"]._actions for word in action.option_strings}

    assert options(["--help"]) == {"-h", "--help"}
    assert options(["tree", "--help"]) > {"-h", "--help", "--json"}


def test_an_unknown_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    told = capsys.readouterr().err
    assert all(f"'{name}'" in told for name in names())


def test_the_app_and_one_command_import_no_other_commands_files() -> None:
    files = {f"tui_llm.commands.{name.replace('-', '_')}" for name in names()}
    seen = modules_after("from tui_llm.commands.shared.parser import build_parser\nbuild_parser([]).parse_args([])")
    assert not seen & files
    seen = modules_after("from tui_llm.cli import main\nmain(['tokens', 'hi'])\nmain(['examples', 'hi, you'])")
    assert seen & files == {"tui_llm.commands.tokens", "tui_llm.commands.examples"}
    assert "torch" not in seen


def test_the_screen_imports_no_torch() -> None:
    code = (
        "import pkgutil, importlib, tui_llm.tui, tui_llm.facts, tui_llm.instruments\n"
        "for package in (tui_llm.tui, tui_llm.facts, tui_llm.instruments):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not found.name.startswith('tui_llm.instruments.') or found.name.endswith('.question'):\n"
        "            importlib.import_module(found.name)"
    )
    seen = modules_after(code)
    assert "tui_llm.tui.app" in seen
    assert "textual" in seen
    assert not seen & {"torch", "tiktoken", "safetensors", "tui_llm.engine", "tui_llm.llm.model.model"}


def test_the_first_paint_waits_for_nothing_that_is_asked_for_later() -> None:
    seen = modules_after("import tui_llm.tui.app, tui_llm.tui.terminal")
    assert "tui_llm.tui.lab.lab" in seen
    assert not seen & {
        *HEAVY - {"textual"},
        "http.client",
        "importlib.metadata",
        "regex",
        "tui_llm.llm.data.corpora",
        "tui_llm.tour.lesson_file",
        "tui_llm.tui.help",
    }


def test_every_screen_keeps_up_with_the_windows_size() -> None:
    import importlib
    import pkgutil

    from textual.screen import Screen

    from tui_llm import tui
    from tui_llm.tui.kit.base_screen import BaseScreen

    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(tui.__path__, f"{tui.__name__}.")]
    ours = {
        one for module in modules for one in vars(module).values() if isinstance(one, type) and issubclass(one, Screen)
    }
    ours = {one for one in ours if one.__module__.startswith("tui_llm")}
    assert len(ours) > 20
    late = {
        one.__name__
        for one in ours
        if not issubclass(one, BaseScreen) or one.__mro__.index(BaseScreen) > one.__mro__.index(Screen)
    }
    assert not late


def test_maths_training_and_engine_import_no_textual() -> None:
    code = (
        "import pkgutil, importlib, tui_llm.llm, tui_llm.training, tui_llm.engine\n"
        "for package in (tui_llm.llm, tui_llm.training):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(found.name)"
    )
    seen = modules_after(code)
    assert "torch" in seen
    assert "tui_llm.training.worker.process" in seen
    assert not {m for m in seen if m.split(".")[0] in ("textual", "transformers") or m.startswith("tui_llm.tui")}


def test_reading_runs_needs_no_torch() -> None:
    seen = modules_after(
        "import tui_llm.training.run.run, tui_llm.training.plan.launch, tui_llm.training.plan.follow, tui_llm.training.plan.cost, tui_llm.facts.reading"
    )
    assert not seen & {"torch", "textual"}


def test_a_softmax_needs_no_torch() -> None:
    seen = modules_after("from tui_llm.cli import main\nassert main(['softmax', 'mat=3.2', 'rug=1.3']) == 0")
    assert "tui_llm.llm.predict.distribution" in seen and not seen & (HEAVY - {"numpy"})


SHORT_COMMANDS = {
    "logits": ["The cat", "--find", "dog", "--temperatures", "0.5,1"],
    "loss": ["The cat", "--target", " sat on"],
    "draw": ["The cat", "--count", "50"],
    "surprisal": ["The cat sat"],
    "generate": ["The cat", "--max-tokens", "3"],
}


@pytest.mark.parametrize("command", SHORT_COMMANDS)
def test_a_short_command_needs_no_torch(command: str) -> None:
    words = [command, *SHORT_COMMANDS[command], "--device", "cpu"]
    seen = modules_after(f"from tui_llm.cli import main\nassert main({words!r}) == 0")
    assert "tui_llm.llm.model.numpy_gpt" in seen and "torch" not in seen


SLOW_PARTS_OF_TORCH = ("torch._dynamo", "torch._inductor", "torch.distributed", "sympy")
"""They take as long to import as torch itself. torch 2.13 imports torch.distributed itself, which no user of torch can
avoid, so that what `import torch` brings is subtracted."""

USES = {
    "a reading": "from tui_llm.engine import PipelineEngine\nfrom tui_llm.facts.request import Request, Target\n"
    "engine = PipelineEngine('cpu')\nengine.open('nano')\n"
    "assert engine.read(Request(prompt='The cat', target=Target(text=' sat'))).loss is not None",
    "learn, SGD": "from tui_llm.cli import main\nassert main(['learn', 'The cat', '--target', ' sat', '--device', 'cpu']) == 0",
    "learn, AdamW": "from tui_llm.cli import main\n"
    "assert main(['learn', 'The cat', '--target', ' sat', '--optimizer', 'adamw', '--device', 'cpu']) == 0",
    "a training": """
import dataclasses
import tempfile
from pathlib import Path
from tui_llm.training.plan import launch
from tui_llm.training.run.settings import PRESETS
from tui_llm.training.worker import process, worker
text = Path(tempfile.mkdtemp()) / "text.txt"
text.write_text("the cat sat on the mat and slept\\n" * 200)
run = launch.create("first", [str(text)], dataclasses.replace(PRESETS["toy"], steps=1, optimizer="muon"), preset="toy", device="cpu")
assert process.work(worker.Worker(run)) == 0
""",
}


def slow_parts(modules: set[str]) -> set[str]:
    return {name for name in modules if any(f"{name}.".startswith(f"{slow}.") for slow in SLOW_PARTS_OF_TORCH)}


# Each use continues, in a process of its own, one that has imported torch.
FORKS = """
import os, sys, torch
plain = set(sys.modules)
for name, code in USES.items():
    sys.stdout.flush()
    child = os.fork()
    if not child:
        exec(code, {"__name__": "use"})
        print("\\n" + name, *set(sys.modules) - plain, sep="|")
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


def test_no_use_imports_a_slow_part_of_torch() -> None:
    done = subprocess.run([sys.executable, "-c", f"USES = {USES!r}{FORKS}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    added = {
        use: set(line.split("|")[1:]) for use in USES for line in done.stdout.splitlines() if line.startswith(f"{use}|")
    }
    assert added.keys() == USES.keys()
    for use, modules in added.items():
        assert "tui_llm.llm.model.model" in modules, use
        assert not slow_parts(modules), use


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed (extra `dev`)")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([tool, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True)


def test_import_linters_contracts_hold() -> None:
    done = lint(REPOSITORY)
    assert done.returncode == 0, done.stdout


def test_no_circle_among_modules() -> None:
    """Counts imports inside functions and type-only imports too."""
    grimp = pytest.importorskip("grimp", reason="import-linter is not installed (extra `dev`)")
    graph = grimp.build_graph("tui_llm", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_no_class_has_more_than_three_ancestors_of_our_own() -> None:
    """What several classes need is an object that each of them has, not another mixin."""
    bases: dict[str, set[str]] = {}
    for path in (REPOSITORY / "tui_llm").rglob("*.py"):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                names = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
                bases.setdefault(node.name, set()).update(names - {node.name})

    def ancestors(name: str) -> set[str]:
        own = bases[name] & bases.keys()
        return own.union(*map(ancestors, own))

    assert len(bases) > 200
    many = {name: sorted(ancestors(name)) for name in bases if len(ancestors(name)) > 3}
    assert not many


SELF_EXPLAINING = {REPOSITORY / "tui_llm/commands", REPOSITORY / "tui_llm/tui/instruments"}
"""Folders with a file per command or per instrument: each says in its docstring what it is, and a new one needs no line."""


def test_package_init_files_import_nothing() -> None:
    """`__init__` files contain only a docstring, so that importing a module costs no more than it needs.

    The root package is the exception: it has the public names.
    """
    for path in sorted((REPOSITORY / "tui_llm").rglob("__init__.py"))[1:]:
        (only,) = tree(path).body
        assert isinstance(only, ast.Expr), path
        if path.parent in SELF_EXPLAINING:
            continue
        named = {line.split()[0] for line in ast.unparse(only.value).split("\\n") if re.match(r"\w+\.py ", line)}
        files = {file.name for file in path.parent.glob("*.py")} - {"__init__.py", "__main__.py"}
        assert named == files, f"{path}: its docstring introduces each file of its folder"


def test_a_file_of_a_folder_without_a_list_says_what_it_is() -> None:
    for path in (path for folder in SELF_EXPLAINING for path in folder.glob("*.py")):
        about = ast.get_docstring(tree(path)) or ""
        assert about, path
        name = path.stem.replace("_", "-")
        if name in names() and path.parent.name == "commands":
            assert about.startswith(f"`tui-llm {name}`: "), path


TORCH_PRIVATE = "llm/model/torch_private.py"


def dotted(node: ast.expr) -> list[str]:
    """Returns the names of `a.b.c`; an empty list for any other expression."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return [*before, node.attr]
    return []


def private_names_of_torch(module: list[ast.AST]) -> list[str]:
    """Returns the private names of torch, and operators of `torch.ops`, that a module uses, from its nodes."""
    aliases, found = {"torch": "torch"}, []
    for node in module:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in module:
        names = dotted(node) if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and len(node.args) > 1:
            names = [*dotted(node.args[0]), ast.unparse(node.args[1]).strip("'\"")]
        if names:
            found.append(".".join([aliases.get(names[0], names[0]), *names[1:]]))
    torch = [name for name in found if name.partition(".")[0] == "torch"]
    return [name for name in torch if re.search(r"\._(?!_)", name) or f"{name}.".startswith("torch.ops.")]


@pytest.mark.parametrize(
    "code",
    [
        "import torch._dynamo",
        "from torch._C import Generator",
        "from torch import ops",
        "import torch\ntorch._softmax_backward_data",
        "import torch\ntorch.ops.aten.mm",
        "import torch.distributed as dist\ndist.distributed_c10d._get_default_store()",
        "import torch\ngetattr(torch.cpu, '_is_avx512_bf16_supported', None)",
    ],
)
def test_a_private_name_of_torch_is_found(code: str) -> None:
    fine = "import torch\nself._x = torch.nn.functional.linear(model._y, torch.__version__)"
    assert private_names_of_torch(list(ast.walk(ast.parse(code))))
    assert not private_names_of_torch(list(ast.walk(ast.parse(fine))))


def test_one_file_uses_private_names_of_torch() -> None:
    package = REPOSITORY / "tui_llm"
    users = {
        path.relative_to(package).as_posix(): names
        for path in sorted(package.rglob("*.py"))
        if (names := private_names_of_torch(nodes(path)))
    }
    assert users.pop(TORCH_PRIVATE)
    assert not users


LONGEST_FILE, LONGEST_FUNCTION = 400, 60  # lines


def test_files_and_functions_are_short() -> None:
    """Complexity has a limit too: ruff's C901."""
    long = []
    for path in sorted([*(REPOSITORY / "tui_llm").rglob("*.py"), *(REPOSITORY / "scripts").glob("*.py")]):
        name, text = path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8")
        if text.count("\n") > LONGEST_FILE:
            long.append(f"{name}: {text.count(chr(10))} lines")
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{name}: {node.name} has {lines} lines")
    assert not long


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("tui/lab/panes/tokens.py", "import torch"),
        ("tui/state/lab.py", "def late():\n    import torch"),
        ("llm/predict/loss.py", "from textual.app import App"),
        ("training/worker/loop.py", "import tui_llm.tui.app"),
        ("llm/predict/generate.py", "import tui_llm.engine"),
    ],
)
def test_a_hole_in_a_wall_is_found(tmp_path: Path, place: str, line: str) -> None:
    """The contracts fail if the screen imports torch or the maths imports textual."""
    shutil.copytree(REPOSITORY / "tui_llm", tmp_path / "tui_llm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    path = tmp_path / "tui_llm" / place
    assert path.is_file()
    path.write_text(path.read_text() + f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode != 0, done.stdout
    assert "BROKEN" in done.stdout
