"""`--help`: each command has a page of the same form, with examples that parse; cheap examples are run."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import transformers
from packaging.requirements import Requirement

import tui_llm
from tui_llm.cli import main
from tui_llm.commands.shared.command import parsers
from tui_llm.commands.shared.parser import build_parser
from tui_llm.common.errors import UserError
from tui_llm.llm.model import switches
from tui_llm.training.run.settings import OBJECTIVE_DEFAULTS, SETTINGS
from tui_llm.tui.runs.new_run_fields import HINTS

ALL = dict(parsers(build_parser()))
EXAMPLES = [
    (path, line.strip())
    for path, parser in ALL.items()
    for line in (parser.epilog or "").removeprefix("examples:\n").split("\n\n")[0].splitlines()
]
CHEAP = ("tokens", "softmax", "merges", "letters", "runs", "models", "models info", "completion")  # load no weights


def test_every_command_and_action_says_what_it_prints_and_has_examples() -> None:
    assert {path for path, _ in EXAMPLES} == set(ALL)
    for path, parser in ALL.items():
        first, *more = (parser.description or "").split("\n\n")
        assert first.endswith(".") and (more or not path), path
        assert all(paragraph.endswith((".", ":", "fish")) for paragraph in more), path


def test_every_command_has_a_function_that_runs_it() -> None:
    for path, parser in ALL.items():
        assert callable(parser.get_default("run_command")) is (path != "vocabulary"), path


@pytest.mark.parametrize(("path", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_every_example_parses_as_its_command(path: str, line: str) -> None:
    options = ALL[""].parse_args(shlex.split(line)[1:])
    said = [word for word in (options.command, getattr(options, "action", None)) if word]
    assert not path or said[: len(path.split())] == path.split()
    assert line in " ".join(ALL[path].format_help().split("\n"))


@pytest.mark.parametrize("line", [line for path, line in EXAMPLES if path in CHEAP and "compare" not in line and "rename" not in line and " pull " not in line])  # fmt: skip
def test_cheap_examples_run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line)[1:]) == 0
    assert capsys.readouterr().out


def test_a_training_example_names_its_run() -> None:
    """Else the command ends with "name the run"; the examples of `train` are too dear to run."""
    shown = [ALL[""].parse_args(shlex.split(line)[1:]) for path, line in EXAMPLES if path == "train"]
    assert [one for one in shown if not (one.run or one.branch or one.cost)] == []


def test_a_warm_up_says_its_default_and_each_objective_its_own() -> None:
    options = ALL["train"]._option_string_actions
    assert "(default: the preset's, at most 1/10 of the steps; 10 with --preference; 5 with --reward)" in str(options["--warmup-steps"].help)  # fmt: skip
    assert "at most 1/5 of the steps; 0 with another optimizer" in str(options["--momentum-warmup-steps"].help)
    for objective, defaults in OBJECTIVE_DEFAULTS.items():
        for name in set(defaults) - {"minutes"}:
            assert f"--{objective}" in str(options[f"--{name.replace('_', '-')}"].help), name
    assert "--reward" not in str(ALL["find-lr"]._option_string_actions["--steps"].help)  # it is for text only


@pytest.mark.parametrize("path", ALL)
def test_every_option_and_argument_says_what_it_is(path: str) -> None:
    for action in ALL[path]._actions:
        assert isinstance(action, argparse._SubParsersAction) or action.help, (path, action)


@pytest.mark.parametrize("path", ALL)
def test_a_page_fits_80_columns(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = ALL[path].format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert "\nexamples:\n  tui-llm" in text
    first = text.split("\n\n")[1]
    assert first[0].isupper() and first.rstrip().endswith(".")


def test_the_top_page_says_where_things_are_and_what_a_status_means(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ALL[""].format_help()
    for words in ("exit status:", "environment:", "files:", "TUI_LLM_HOME", "NO_COLOR", "DATA/runs/NAME/", "130"):
        assert words in text
    assert main(["tokens", "x", "--tokenizer", "nobody"]) == 2
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0


def test_the_top_page_names_each_file_and_variable_of_the_package() -> None:
    package, text = Path(tui_llm.__file__).parent, ALL[""].format_help()
    paths = set(package.rglob("*.py")) - {package / "commands/shared/app.py"}  # it has the page's text
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted(paths))
    variables = sorted(set(re.findall(r"\bTUI_LLM_[A-Z_]+[A-Z]", code)))
    assert len(variables) > 6 and [one for one in variables if one not in text] == []
    aside = re.findall(r'"(?:svg|json|safetensors)", "(\w{4,})"[,)]', code)  # of `save_new` and `free_path`
    files = {*re.findall(r'data_dir\(\) / "([\w.-]+)', code), *aside}
    assert {"runs", "ladders", "pictures", "charts"} <= files
    assert [one for one in sorted(files) if one not in text] == []


def test_export_names_each_layout_and_the_extra_has_it() -> None:
    description = " ".join((ALL["export"].description or "").split())
    assert [
        layout.title
        for layout in switches.LAYOUTS
        if layout.title.lower().replace("gpt2", "gpt-2") not in description.lower()
    ] == []
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["transformers"]
    (needed,) = [Requirement(one) for one in extra if one.startswith("transformers")]
    assert "4.57.6" not in needed.specifier  # the last without NanoChat
    assert transformers.__version__ in needed.specifier and hasattr(transformers, "NanoChatConfig")


def test_every_command_takes_json_but_two() -> None:
    for path, parser in ALL.items():
        if path and not any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
            assert ("--json" in parser.format_help()) is (path not in ("serve", "completion")), path


def test_every_training_setting_is_an_option_and_a_field_with_the_same_help() -> None:
    options = ALL["train"]._option_string_actions
    for name, setting in SETTINGS.items():
        option = "--from" if name == "from_model" else f"--{name.replace('_', '-')}"
        assert setting.help in (options[option].help or ""), name
        assert HINTS[name] == setting.help and len(setting.help) <= 36  # a line of the form at 80 columns
        assert options[option].dest == name


def test_an_unknown_option_names_the_help_page_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words, page in (
        (["generate", "x", "--foo"], "tui-llm generate"),
        (["runs", "rename", "a", "b", "--foo"], "tui-llm runs rename"),
        (["--foo"], "tui-llm"),
    ):
        assert main(words) == 2
        assert capsys.readouterr().err == f"tui-llm: unrecognized arguments: --foo; `{page} --help` lists the options\n"


def required(parser: argparse.ArgumentParser) -> list[str]:
    """Words for what a command must be given."""
    words: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            name, sub = next(iter(action.choices.items()))
            words += [name, *required(sub)]
        elif action.required and action.option_strings:
            words += [action.option_strings[0], "1"]
        elif action.required:
            words += ["1"]
    return words


BEFORE = [
    (path, action, value)
    for path, parser in ALL.items()
    if any(isinstance(one, argparse._SubParsersAction) for one in parser._actions)
    for action in parser._actions
    if action.option_strings and not isinstance(action, (argparse._HelpAction, argparse._VersionAction))
    for value in ([""] if action.nargs == 0 else ["1", action.default])
]


@pytest.mark.parametrize(("path", "action", "value"), BEFORE, ids=lambda one: getattr(one, "dest", None) or repr(one))
def test_an_option_before_a_command_is_passed_on_or_refused(path: str, action: argparse.Action, value: object) -> None:
    """Each option of each parser with commands, before each command; with the default's value too: it was given all the same."""
    option = action.option_strings[0] + ("" if action.nargs == 0 else f"={value}")
    (inner,) = (one for one in ALL[path]._actions if isinstance(one, argparse._SubParsersAction))
    for name, sub in inner.choices.items():
        front, words = path.split(), [name, *required(sub)]

        def parsed(*words: str) -> argparse.Namespace:
            return build_parser([*front, *words]).parse_args([*front, *words])  # noqa: B023

        if action.option_strings[0] in sub._option_string_actions:
            assert parsed(option, *words) == parsed(*words, option), (option, name)
            if action.nargs is None:
                later = f"{action.option_strings[0]}=9"
                assert parsed(option, *words, later) == parsed(*words, later), "the later one holds"
        else:
            with pytest.raises(UserError, match=f"can't come before {name}, which has no such option"):
                parsed(option, *words)
