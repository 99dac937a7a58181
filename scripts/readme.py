"""Generate the README's tree and table of commands, docs/keys.md and docs/cli.md from the code; `--check` only compares them.

python scripts/readme.py [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

FOLDERS = {  # the package's folders and those next to it, in reading order; a test compares them with the disk
    "tui_llm": "the package: `cli.py`, `api.py` and `engine.py` are its entry points",
    "tui_llm/commands": "a command of the command line per file: options, help page, action",
    "tui_llm/commands/shared": "what the commands use: options, output, the parser",
    "tui_llm/tui": "the app; imports no torch",
    "tui_llm/tui/lab": "the main screen and its controllers",
    "tui_llm/tui/lab/panes": "Tokens, Logits & softmax, Loss, Generate",
    "tui_llm/tui/instruments": "a full screen per instrument, with its keys",
    "tui_llm/tui/instruments/ablate": "Switch off",
    "tui_llm/tui/instruments/draws": "where u falls on the cumulative distribution; many draws",
    "tui_llm/tui/instruments/inside": "attention, logit lens, neighbours",
    "tui_llm/tui/instruments/learn": "Learn this",
    "tui_llm/tui/instruments/patch": "activation patching: layers × tokens",
    "tui_llm/tui/instruments/prefer": "Prefer",
    "tui_llm/tui/instruments/reward": "Reward",
    "tui_llm/tui/instruments/sft": "supervised fine-tuning",
    "tui_llm/tui/instruments/tree": "the tree of continuations",
    "tui_llm/tui/instruments/why": "why this token",
    "tui_llm/tui/runs": "forms, lists, charts and readers of training runs",
    "tui_llm/tui/runs/curves": "the curves of runs in a grid",
    "tui_llm/tui/models": "choosing, pulling and deleting models",
    "tui_llm/tui/tour": "the tour's pane",
    "tui_llm/tui/kit": "formats, themes and base screens that know nothing of models",
    "tui_llm/tui/kit/widgets": "lists, tables, charts, the prompt's editor",
    "tui_llm/tui/state": "the lab's state, its history, and the thread that calls the engine",
    "tui_llm/tour": "the tour and other lessons: their files (`lessons/`), and the checks",
    "tui_llm/instruments": "NAME/question.py (plain data) and NAME/answer.py per instrument",
    "tui_llm/training": "training runs",
    "tui_llm/training/run": "what a run directory contains; imports no torch",
    "tui_llm/training/run/foreign": "checkpoints and logs of other programs",
    "tui_llm/training/plan": "settings, cost, launching",
    "tui_llm/training/worker": "the process that trains",
    "tui_llm/session": "the open model: from text and weights to plain facts",
    "tui_llm/llm": "the maths, in the order of the pipeline",
    "tui_llm/llm/tokens": "tokenizers and vocabularies",
    "tui_llm/llm/data": "corpora and batches",
    "tui_llm/llm/model": "GPT-2, checkpoints, devices",
    "tui_llm/llm/predict": "softmax, sampling, loss",
    "tui_llm/llm/learn": "optimizer steps on a copy, evaluation, fine-tuning",
    "tui_llm/llm/adapters": "other causal language models, through transformers",
    "tui_llm/llm/formats": "checkpoint files of nanoGPT, llm.c, llama2.c and nanochat",
    "tui_llm/llm/hub": "finding, pulling and opening models",
    "tui_llm/llm/check": "checks of a model folder or file",
    "tui_llm/facts": "frozen dataclasses that cross floors",
    "tui_llm/common": "errors, files, paths, display, numbers",
    "models": "the model that ships",
    "docs": "the pages listed above, and their pictures",
    "scripts": "write the generated pages, draw the pictures, measure, train nano",
    "dev": "the log of what was measured and tried",
    "findings": "surprises in other packages: a script each that shows one",
    "tests": "pytest; the folders follow the package's",
}

GROUPS = {  # of README's table of commands; those not named here are in its last row
    "tokens": ("tokens", "examples", "merges", "letters"),
    "the prediction": ("logits", "softmax", "loss", "surprisal", "guess"),
    "sampling": ("generate", "draw", "tree", "chat"),
    "inside the model": (
        "attention",
        "lens",
        "fit-lens",
        "block",
        "backward",
        "why",
        "ablate",
        "patch",
        "steer",
        "heads",
        "neighbours",
    ),
    "several models": ("compare-models", "versus"),
    "learning": ("learn", "prefer", "reward", "sft", "train", "find-lr", "evaluate"),
    "training runs": ("ladder", "runs", "control", "stop", "replay", "probes", "batch", "samples", "export"),
    "models and vocabularies": ("models", "check", "vocabulary"),
    "the program": ("tour", "serve", "bench", "device", "completion"),
}


def cell(text: str) -> str:
    """Escapes `text` for a cell of a Markdown table."""
    return text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")


def code(text: str) -> str:
    """Formats `text` as code in a cell of a Markdown table."""
    return f"`{text}`" if "|" not in text else f"<code>{cell(text)}</code>"


def keys() -> str:
    """Returns the tables of all keys, by group."""
    from tui_llm.tui.keymap import COMMANDS

    groups: dict[str, list[str]] = {}
    for command in COMMANDS:
        groups.setdefault(command.group, []).append(f"`{command.key_text}` | {cell(command.tooltip)} |")
    rows = ["| where | key | what |", "|---|---|---|"]
    for group, lines in groups.items():
        rows += [f"| {group if at == 0 else ''} | {line}" for at, line in enumerate(lines)]
    return "\n".join(rows)


def glossary() -> str:
    """Returns the table of what the numbers on screen mean, as the help screen has it."""
    from tui_llm.tui.glossary import TERMS

    rows = [f"| {cell(term.name)} | {cell(term.meaning)} | {cell(term.unit)} |" for term in TERMS]
    return "\n".join(["| number | what it is | unit |", "|---|---|---|", *rows])


def tree() -> str:
    """Returns the folders, indented by depth."""
    lines = []
    for folder, about in FOLDERS.items():
        depth, name = folder.count("/"), folder.rpartition("/")[2]
        lines.append(f"{'    ' * depth + name + '/':<24} {about}")
    return "```\n" + "\n".join(lines) + "\n```"


def command_groups() -> str:
    """Returns the table of all commands, by what they are about."""
    from tui_llm.commands.shared.parser import names

    named = {name for group in GROUPS.values() for name in group}
    groups = {**GROUPS, "more": tuple(name for name in names() if name not in named)}
    rows = [f"| {about} | {', '.join(f'`{name}`' for name in group)} |" for about, group in groups.items() if group]
    return "\n".join(["| about | commands |", "|---|---|", *rows])


def argument(action: argparse.Action) -> str:
    """Formats an argument as it is typed: `--top N`, `TOKEN=LOGIT …`."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
    words = " ".join(value) if isinstance(value, tuple) else value
    if action.nargs in ("+", "*"):
        words += " …"
    return " ".join(filter(None, [", ".join(action.option_strings), words if action.nargs != 0 else ""]))


def help_page(path: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields `tui-llm PATH --help` as Markdown. The options are in the parser's order."""
    yield f"## tui-llm {path}".rstrip() + "\n"
    for paragraph in (parser.description or "").split("\n\n"):
        as_is = any(line.startswith("  ") for line in paragraph.splitlines())
        yield f"```text\n{paragraph}\n```\n" if as_is else paragraph.replace("<", "&lt;") + "\n"
    rows, actions = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            actions = [(choice.dest, choice.help) for choice in action._choices_actions]
        elif not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            about = parser._get_formatter()._expand_help(action)
            about += " (required)" if action.required and action.option_strings else ""
            about += " (repeatable)" if isinstance(action, argparse._AppendAction) else ""
            rows.append(f"| {code(argument(action))} | {cell(about)} |")
    if rows:
        yield "\n".join(["| argument | meaning |", "|---|---|", *rows]) + "\n"
    if actions:
        linked = ((f"tui-llm {path} {name}".replace("  ", " "), about) for name, about in actions)
        lines = [f"| [`{name}`](#{name.replace(' ', '-')}) | {cell(about or '')} |" for name, about in linked]
        yield "\n".join(["| command | what it does |", "|---|---|", *lines]) + "\n"
    examples, _, sections = (parser.epilog or "").removeprefix("examples:\n").partition("\n\n")
    yield "\n".join(["```console", *(line.strip() for line in examples.splitlines()), "```"]) + "\n"
    if sections:
        yield f"```text\n{sections}\n```\n"


def commands() -> str:
    from tui_llm.commands.shared.command import parsers
    from tui_llm.commands.shared.parser import build_parser

    return "\n".join(part for path, parser in parsers(build_parser()) for part in help_page(path, parser))


def checks() -> str:
    """Returns the table of the checks that a lesson file can name, with the values that they take."""
    from tui_llm.tour.checks import CHECKS

    rows = ["| check | is done when | values |", "|---|---|---|"]
    for name, one in CHECKS.items():
        values = "; ".join(
            f"`{at}`{' (needed)' if value.required else ''}: {value.about}" for at, value in one.values.items()
        )
        asks = f"needs a question with `key` `{one.key}`" if one.key else "needs a question" if one.asks else ""
        asks += f" and `form` `{one.form}`" if one.form else ""
        rows.append(f"| `{name}` | {cell(one.about)} | {'; '.join(filter(None, [values, asks]))} |")
    return "\n".join(rows)


def architecture() -> str:
    """Returns the table of the architecture switches."""
    from tui_llm.llm.model import switches

    rows = [
        f"| `{one.name}` | {cell(one.sentence)}{cell(f' `{one.name}=N`: {one.number}.') if one.number else ''} | "
        f"{cell(one.source)} | {cell(switches.needs(one.name))} |"
        for one in switches.SWITCHES
    ]
    return "\n".join(["| switch | what it does | source | layout |", "|---|---|---|---|", *rows])


def written(text: str, name: str, made: str) -> str:
    """Returns `text` with the part between the markers of `name` replaced by `made`."""
    start, end = re.escape(f"<!-- {name}:"), re.escape(f"<!-- /{name} -->")
    found = re.subn(rf"({start}[^\n]*-->\n).*?({end})", lambda m: f"{m[1]}{made}\n{m[2]}", text, flags=re.DOTALL)
    assert found[1] == 1, f"one pair of marks for {name}"
    return found[0]


PAGES = {
    "README.md": {"commands": command_groups, "tree": tree},
    "docs/keys.md": {"keys": keys},
    "docs/glossary.md": {"glossary": glossary},
    "docs/cli.md": {"commands": commands},
    "docs/lessons.md": {"checks": checks},
    "docs/training.md": {"switches": architecture},
}


def main() -> int:
    stale = False
    for name, parts in PAGES.items():
        path = REPOSITORY / name
        new = text = path.read_text(encoding="utf-8")
        for mark, make in parts.items():
            new = written(new, mark, make())
        stale |= new != text
        if "--check" not in sys.argv and new != text:
            path.write_text(new, encoding="utf-8")
    return int(stale) if "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
