"""Writes the README's keys and tree and docs/keys.md from the code, so that none goes stale; `--check` only compares.

python scripts/readme.py [--check]
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SHOWN = {"docs/app.svg": "the picture above", "docs/keys.md": "every key of every screen",
         "docs/instruments.md": "what the panes and screens can do, with their numbers", "docs/training.md": "training for real", "docs/models.md": "other models, vocabularies, no network",
         "docs/performance.md": "how quick it is, and how that was measured",
         "models/nano/README.md": "the card of the model that ships: data, command, losses",
         "pyproject.toml": "what it needs, and the rules it is held to", ".ci/run": "the second command above",
         "tui_llm/tui/app.tcss": "How the screen is laid out and coloured."}  # fmt: skip


def keys(*, lab: bool) -> str:
    """The keys by group; with `lab` those of the five panes and of everywhere, without the full screens'."""
    from tui_llm.tui.commands import COMMANDS, PANES

    groups: dict[str, list[str]] = {}
    for command in COMMANDS:
        if lab and command.scope not in ("app", "lab", "prompt", *PANES):
            continue
        what = command.tooltip.replace("|", chr(92) + "|").replace("<", "&lt;")
        groups.setdefault(command.group, []).append(f"`{command.key_text}` | {what} |")
    rows = ["| where | key | what |", "|---|---|---|"]
    for group, lines in groups.items():
        rows += [f"| {group if at == 0 else ''} | {line}" for at, line in enumerate(lines)]
    return "\n".join(rows)


def all_keys() -> str:
    return (
        "# Every key, on every screen\n\nWritten by `python scripts/readme.py` from the app's own commands. `?` shows this in"
        " the app.\n\n" + keys(lab=False) + "\n"
    )


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
    for name, made in (("keys", keys(lab=True)), ("tree", tree())):
        text = re.sub(
            rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)",
            lambda m, made=made: f"{m[1]}{made}\n{m[2]}",
            text,
            flags=re.DOTALL,
        )  # type: ignore[misc]
    return text


def main() -> int:
    stale = 0
    for path, new in ((REPOSITORY / "README.md", None), (REPOSITORY / "docs" / "keys.md", all_keys())):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        new = written(text) if new is None else new
        stale |= new != text
        if "--check" not in sys.argv and new != text:
            path.write_text(new, encoding="utf-8")
    return int(stale) if "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
