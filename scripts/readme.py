"""Writes the README's table of keys and its tree from the code, so that neither goes stale; `--check` only compares.

python scripts/readme.py [--check]
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SHOWN = {"docs/app.svg": "the picture above", "docs/performance.md": "how quick it is, and how that was measured",
         "models/nano/README.md": "the card of the model that ships: data, command, losses",
         "pyproject.toml": "what it needs, and the rules it is held to", ".ci/run": "the second command above",
         "tui_llm/tui/app.tcss": "How the screen is laid out and coloured."}  # fmt: skip


def keys() -> str:
    from tui_llm.tui.commands import COMMANDS

    rows, group = ["| where | key | what |", "|---|---|---|"], ""
    for command in COMMANDS:
        rows.append(
            f"| {'' if command.group == group else command.group} | `{command.key_text}` | {command.tooltip.replace('|', chr(92) + '|').replace('<', '&lt;')} |"
        )
        group = command.group
    return "\n".join(rows)


def first_line(path: Path) -> str:
    """A module's docstring, up to its first full stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s", text.split("\n\n")[0].replace("\n", " "))[0].rstrip(".")


def tree() -> str:
    lines = []
    for top in ("tui_llm", "models", "scripts", "docs", "tests"):
        lines.append(f"{top}/")
        for path in sorted((REPOSITORY / top).rglob("*")):
            name = path.relative_to(REPOSITORY)
            if (
                "__pycache__" in name.parts
                or not path.is_file()
                or (path.name == "__init__.py" and not path.stat().st_size)
            ):
                continue
            about = SHOWN.get(str(name)) or (first_line(path) if path.suffix == ".py" else "")
            if about:
                lines.append(f"    {name.relative_to(top)!s:34} {about}")
    for name in (".ci/run", "pyproject.toml"):
        lines.append(f"{name:38} {SHOWN[name]}")
    return "```\n" + "\n".join(lines) + "\n```"


def written(text: str) -> str:
    for name, made in (("keys", keys()), ("tree", tree())):
        text = re.sub(
            rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)",
            lambda m, made=made: f"{m[1]}{made}\n{m[2]}",
            text,
            flags=re.DOTALL,
        )  # type: ignore[misc]
    return text


def main() -> int:
    path = REPOSITORY / "README.md"
    text = path.read_text(encoding="utf-8")
    new = written(text)
    if "--check" in sys.argv:
        return int(new != text)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
