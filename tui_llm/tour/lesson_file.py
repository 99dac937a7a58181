"""Lesson files: TOML that describes a lesson's steps. `read` checks every field, and names file and step of an error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from tui_llm.common import paths
from tui_llm.common.display import truncate, visible
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_foreign_text
from tui_llm.common.suggestions import did_you_mean, no_such
from tui_llm.tour.checks import CHECKS, CheckValue
from tui_llm.tour.facts import Facts
from tui_llm.tour.step import TOUR, Ask, Check, Lesson, Part, Step

FOLDER = Path(__file__).with_name("lessons")
SHIPPED = (TOUR, "tokens", "loss-curve")
"""The lessons that ship, in the order in which to take them: NAME.toml in `FOLDER`."""

MOST_BYTES = 1 << 18
MOST_STEPS, MOST_PARTS = 40, 20  # steps of a lesson, parts of a step
TASK, SHORT, LINE = 330, 60, 200  # characters: a task fits beside an app of 80 × 24, with what is missing
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
COMMAND = re.compile(r"\{([^{}]*)\}")
FORMS = ("", "pairs", "file")
RANGES = (("tokens", "tokens_most"), ("loss_least", "loss_most"))  # values of one check: the least and the most


def find(text: str) -> Path:
    """The lesson file that `text` names: a path, or the name of a lesson that ships."""
    if text in SHIPPED:
        return FOLDER / f"{text}.toml"
    path = paths.expand(text)
    if not path.exists() and "/" not in text and "." not in text:
        raise UserError(no_such("lesson", text, SHIPPED, ", or the path of a lesson file"))
    return path


def read(path: Path, known: Container[str] | None = None) -> Lesson:
    """Reads and checks a lesson file. `known` are the ids of all commands; None: keys are not checked.

    Raises `UserError`, in one line with the file and the line or step of the error.
    """
    # Editors on Windows may put a byte order mark in front, which TOML has no place for.
    return parse(read_foreign_text(path, MOST_BYTES).removeprefix("\ufeff"), path, known)


def parse(text: str, path: Path, known: Container[str] | None = None) -> Lesson:
    try:
        fields = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:  # ValueError: a number of a thousand digits
        why = str(error) or "nested too deep"
        raise UserError(f"{path}: not valid TOML: {visible(why)[:200]}; correct that line") from error
    return _LessonParser(path, known).lesson(fields)


class _LessonParser:
    def __init__(self, path: Path, known: Container[str] | None) -> None:
        self.path, self.known = path, known
        self.where = ""  # the step and part that is being read

    def wrong(self, what: str) -> UserError:
        return UserError(f"{self.path}: {self.where}{what}")

    def lesson(self, fields: Mapping[str, Any]) -> Lesson:
        self._fields(fields, ("name", "title", "about", "step"))
        name = self._text(fields, "name", SHORT)
        if not NAME.fullmatch(name):
            raise self.wrong(
                f"name is {_quoted(name)}; use at most 40 of a to z, 0 to 9, - and _: progress is stored under it"
            )
        if name in SHIPPED and self.path.resolve().parent != FOLDER.resolve():
            raise self.wrong(
                f"name is {_quoted(name)}, which a lesson that ships has; give another one, such as my-{name}"
            )
        title, about = self._text(fields, "title", SHORT), self._text(fields, "about", LINE, "")
        steps: list[Step] = []
        for at, one in enumerate(self._tables(fields, "step", MOST_STEPS), 1):
            self.where = f"step {at}: "
            steps.append(self._step(at, one, {step.name for step in steps}))
        self.where = ""
        return Lesson(name, title, about, tuple(steps), str(self.path))

    def _step(self, at: int, fields: Mapping[str, Any], taken: set[str]) -> Step:
        self._fields(fields, ("name", "title", "part"))
        title = self._text(fields, "title", SHORT)
        name = self._text(fields, "name", SHORT, f"step-{at}")
        if name in taken:
            raise self.wrong(f"an earlier step has the name {_quoted(name)}; give another one")
        parts = []
        for number, one in enumerate(self._tables(fields, "part", MOST_PARTS), 1):
            self.where = f"step {at}, part {number}: "
            parts.append(self._part(f"{name}.{number}", one))
        return Step(name, title, tuple(parts))

    def _part(self, key: str, fields: Mapping[str, Any]) -> Part:
        self._fields(fields, ("do", "check", "ask", "then"))
        do = self._words(fields, "do", TASK)
        then = self._words(fields, "then", TASK, "")
        ask = self._ask(key, fields["ask"]) if "ask" in fields else None
        check = self._check(fields.get("check"), ask)
        began = check(Facts(), Facts())
        if began.done:
            raise self.wrong("the check is done before the learner does anything; give it a value to check")
        self._keys("the check", began.words)
        return Part(do, check, ask, then)

    def _ask(self, key: str, fields: Any) -> Ask:
        if not isinstance(fields, dict):
            raise self.wrong('ask is no table; write ask = { title = "…" }')
        self._fields(fields, ("key", "title", "hint", "text", "form"), "ask.")
        form = self._text(fields, "form", SHORT, "")
        if form not in FORMS:
            raise self.wrong(no_such("form", form, FORMS[1:], ", or leave form out"))
        text = self._text(fields, "text", 4000, "", blank=True, newlines=form == "pairs")
        if form == "file" and not text:
            text = str(paths.shipped_models_dir() / "nano" / "README.md")
        hint = self._text(fields, "hint", LINE, "Enter answers · Esc cancels")
        title = self._text(fields, "title", LINE)
        return Ask(self._text(fields, "key", SHORT, key), title, hint, text, form)

    def _check(self, given: Any, ask: Ask | None) -> Check:
        """`check = "NAME"`, or `check = { name = "NAME", VALUE = … }`."""
        values = {"name": given} if isinstance(given, str) else given
        if not isinstance(values, dict):
            raise self.wrong('there is no check; write check = "confirmed", or the name of another one')
        name = self._text(values, "name", SHORT)
        found = CHECKS.get(name)
        if found is None:
            meant = did_you_mean(name, CHECKS)
            raise self.wrong(f"there is no check {_quoted(name)}; {meant}`tui-llm tour --names` lists them")
        self._fields(values, ("name", *found.values), f"check {name}: ")
        for at, value in found.values.items():
            if at in values:
                self._value(f"{name}.{at}", values[at], value)
            elif value.required:
                raise self.wrong(f"check {name} needs {at} ({value.about})")
        for least, most in RANGES:
            if least in values and most in values and values[least] > values[most]:
                raise self.wrong(f"check {name} can't be passed: {least} is more than {most}; lower it")
        if any(isinstance(one, str) and not one.strip() for one in values.get("answers", ())):
            raise self.wrong(f"check {name}: answers has a blank text, which nobody can answer; delete it")
        if found.asks and ask is None:
            raise self.wrong(f'check {name} needs a question; write ask = {{ title = "…" }}')
        key = ask.key if ask is not None else ""
        if found.key and ask is not None and (key, ask.form) != (found.key, found.form):
            form = f' and form = "{found.form}"' if found.form else " and no form"
            raise self.wrong(f'check {name} needs a question with key = "{found.key}"{form}')
        return found.make({at: value for at, value in values.items() if at != "name"}, key)

    def _value(self, name: str, given: Any, value: CheckValue) -> None:
        """Raises if the value `given` is not what the check takes."""
        kinds = {
            "text": lambda: isinstance(given, str) and len(given) <= 2000,
            "texts": lambda: _all_of(given, lambda one: isinstance(one, str) and len(one) <= 2000),
            "number": lambda: _is_number(given),
            "whole": lambda: type(given) is int and _is_number(given),
            "flag": lambda: isinstance(given, bool),
            "answers": lambda: _all_of(given, lambda one: isinstance(one, str) or _is_number(one)),
        }
        if not kinds[value.kind]():
            raise self.wrong(f"{name} is {_quoted(given)}; give {_KINDS[value.kind]} ({value.about})")
        if value.kind in ("number", "whole") and not value.least <= given <= value.most:
            raise self.wrong(f"{name} is {given:g}; give a number from {value.least:g} to {value.most:g}")
        if value.choices and given not in value.choices:
            raise self.wrong(f"{name}: {no_such('such value', given, value.choices)}".replace("no such value", "no"))
        for text in [given] if value.kind == "text" else []:
            if name.rpartition(".")[2] in ("keys", "hint"):
                self._printable(name, text)
                self._keys(name, text)

    # ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fields(self, given: Mapping[str, Any], known: tuple[str, ...], front: str = "") -> None:
        for name in given:
            if name not in known:
                meant = did_you_mean(name, known)
                raise self.wrong(f"{front}{_quoted(name)} is no field; {meant}fields: {', '.join(known)}")

    def _tables(self, fields: Mapping[str, Any], name: str, most: int) -> list[Mapping[str, Any]]:
        found = fields.get(name)
        header = "[[step]]" if name == "step" else "[[step.part]]"
        if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
            raise self.wrong(f"there is no {name}; begin one with the line {header}")
        if len(found) > most:
            raise self.wrong(f"there are {len(found)} {name}s; at most {most} are allowed")
        return found

    def _text(
        self, fields: Mapping[str, Any], name: str, most: int, default: str | None = None, *,
        blank: bool = False, newlines: bool = False,
    ) -> str:  # fmt: skip
        if name not in fields and default is not None:
            return default
        found = fields.get(name)
        if not isinstance(found, str) or not (found.strip() or blank):
            raise self.wrong(f'{name} is missing or no text; write {name} = "…"')
        if len(found) > most:
            raise self.wrong(f"{name} has {len(found):,} characters; at most {most:,} fit")
        self._printable(name, found.replace("\n", "") if newlines else found)
        return found

    def _words(self, fields: Mapping[str, Any], name: str, most: int, default: str | None = None) -> str:
        """A text for the tour's pane: lines are joined, and {command} must name a command."""
        given = fields.get(name)
        joined = {**fields, name: " ".join(given.split())} if isinstance(given, str) else fields
        text = self._text(joined, name, most, default)
        self._keys(name, text)
        return text

    def _printable(self, name: str, text: str) -> None:
        shown = visible(text)
        if shown != text:
            at = next(at for at, char in enumerate(text) if visible(char) != char)
            raise self.wrong(
                f"{name} has the character {visible(text[at])} at {at + 1}, which no screen shows; delete it"
            )

    def _keys(self, name: str, text: str) -> None:
        for id in COMMAND.findall(text) if self.known is not None else ():
            if self.known is not None and id not in self.known:
                names = list(self.known) if isinstance(self.known, (dict, set, frozenset, list, tuple)) else []
                meant = did_you_mean(id, names)
                raise self.wrong(
                    f"{name} names the command {{{id}}}, which does not exist; {meant}`tui-llm tour --names` lists them"
                )


_KINDS = {
    "text": "a text in quotation marks", "texts": 'a list of texts, such as [" cat", " dog"]', "number": "a number", "whole": "a whole number",
    "flag": "true or false", "answers": 'a list of texts and numbers, such as ["two", 2]',
}  # fmt: skip


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e15  # False for NaN


def _all_of(given: Any, good: Any) -> bool:
    return isinstance(given, list) and 0 < len(given) <= 50 and all(map(good, given))


def _quoted(value: Any) -> str:
    return truncate(repr(visible(str(value))) if isinstance(value, str) else visible(str(value)[:200]), 60)
