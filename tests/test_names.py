"""Names that must not stand for two things."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "tui_llm"


def classes(body: list[ast.stmt], outer: str = "") -> Iterator[tuple[str, int]]:
    """The qualified name and line of each class in `body`, and of those inside it. A message that a widget defines for
    itself, such as `PinList.Chosen`, is named together with the widget, as in Textual."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield outer + node.name, node.lineno
            yield from classes(node.body, f"{outer}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.If | ast.Try | ast.With | ast.AsyncFunctionDef):
            yield from classes(node.body, outer)


def test_a_class_name_stands_once_in_the_package() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, line in classes(ast.parse(path.read_text(encoding="utf-8")).body):
            places[name].append(f"{path.relative_to(PACKAGE.parent)}:{line}")
    assert len(places) > 300
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, "\n".join(f"{name}: {', '.join(where)}" for name, where in sorted(twice.items()))
