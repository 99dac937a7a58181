"""Lesson files: those that ship, the example of the docs, and one line with the place of every error."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_llm import cli
from tui_llm.commands.shared import app
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.data.instruction_pairs import EXAMPLES, show
from tui_llm.tour import numbers
from tui_llm.tour.checks import CHECKS, PANES, SCREENS, VIEWS
from tui_llm.tour.facts import Facts, RunFacts
from tui_llm.tour.lesson_file import SHIPPED, find, parse, read
from tui_llm.tour.spaces import wrong_space
from tui_llm.tour.step import Check
from tui_llm.tour.tour import Tour, path
from tui_llm.tui.keymap import BY_ID
from tui_llm.tui.kit import command
from tui_llm.tui.lab.panes import tokens as tokens_pane

DOCS = Path(__file__).parents[2] / "docs" / "lessons.md"
GOOD = """name = "mine"
title = "Mine"
[[step]]
title = "One"
[[step.part]]
do = "Press {pane_loss}."
check = { name = "pane", pane = "loss" }
"""


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


# ── what ships ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SHIPPED)
def test_lessons_that_ship_name_keys_that_there_are(name: str) -> None:
    lesson = read(find(name), BY_ID)
    assert lesson.name == name and lesson.steps
    for step in lesson.steps:
        for part in step.parts:
            began = part.check(Facts(), Facts())
            assert not began.done and began.words


def test_numbers_in_the_tours_text_follow_from_the_formulas() -> None:
    text = find("tour").read_text(encoding="utf-8")
    for words in (
        numbers.typed_logits(numbers.LOGITS),
        numbers.table_logits(),
        f"T = {numbers.COLD:g}",
        f"T = {numbers.HOT:g}",
        show(EXAMPLES),
    ):
        assert words in text


def test_numbers_in_the_loss_curves_text() -> None:
    text = find("loss-curve").read_text(encoding="utf-8")
    assert f"[{math.log(257):.3f}]" in text and f"[{math.exp(1.1):.3f}]" in text
    assert f"1.1 nats are {1.1 / math.log(2):.2f} bits" in text and f"= {math.exp(-0.1):.3f}" in text
    assert f"[{12345 + 67890}]" in find("tokens").read_text(encoding="utf-8")


def test_the_names_of_screens_panes_and_views_are_those_of_the_app() -> None:
    import importlib
    import pkgutil

    from tui_llm import tui
    from tui_llm.tui.kit.base_screen import BaseScreen

    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(tui.__path__, f"{tui.__name__}.")]
    found = {
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, BaseScreen)
    }
    assert set(SCREENS) == {one.tour_name for one in found} - {"other"}
    assert command.PANES == PANES and set(VIEWS) == set(tokens_pane.VIEWS)


# ── files of a teacher's own ─────────────────────────────────────────────────────────────────────────────────────


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "lesson.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_example_of_the_docs_is_a_lesson(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    file = write(tmp_path, example)
    assert cli.main(["tour", "--check", str(file)]) == 0
    assert "no errors" in capsys.readouterr().out
    assert cli.main(["tour", "--check", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


@pytest.mark.parametrize(("old", "new", "said"), [
    ('title = "One"', 'title = "One', "line 4"),
    ('name = "mine"', "", "name is missing"),
    ('name = "mine"', 'name = "My lesson"', "a to z"),
    ('name = "mine"', 'name = "tokens"', "my-tokens"),
    ('title = "One"', 'titel = "One"', "step 1: 'titel' is no field; did you mean title?"),
    ('title = "One"', 'title = 3', "step 1: title is missing or no text"),
    ('title = "One"', 'title = "a\\u001bb"', "step 1: title has the character ␛ at 2"),
    ('title = "One"', f'title = "{"x" * 61}"', "step 1: title has 61 characters; at most 60"),
    (GOOD[GOOD.index("[[step]]") :], "", "there is no step; begin one with the line [[step]]"),
    ("[[step.part]]\n", "", "step 1: 'do' is no field"),
    ("{pane_loss}", "{pane_los}", "step 1, part 1: do names the command {pane_los}, which does not exist; did you mean pane_loss?"),
    ("Press {pane_loss}.", " ", "step 1, part 1: do is missing or no text"),
    ("Press {pane_loss}.", "x" * 400, "step 1, part 1: do has 400 characters; at most 330 fit"),
    ('{ name = "pane", pane = "loss" }', '"pan"', "there is no check 'pan'; did you mean pane?"),
    ('{ name = "pane", pane = "loss" }', '"pane"', "check pane needs pane"),
    ('{ name = "pane", pane = "loss" }', "3", "there is no check"),
    ('{ name = "pane", pane = "loss" }', '{ name = "target", loss_least = "4" }', "target.loss_least is '4'; give a number"),
    ('{ name = "pane", pane = "loss" }', '{ name = "target", loss_least = nan }', "give a number"),
    ('{ name = "pane", pane = "loss" }', '{ name = "sampler", temperature = 9 }', "from 0 to 5"),
    ('{ name = "pane", pane = "loss" }', '{ name = "text", tokens = true }', "give a whole number"),
    ('{ name = "pane", pane = "loss" }', '{ name = "answer", answers = [] }', "give a list of texts and numbers"),
    ('{ name = "pane", pane = "loss" }', '"answer"', "check answer needs a question"),
    ('{ name = "pane", pane = "loss" }', '"predicted"\nask = { title = "?" }', 'needs a question with key = "pairs"'),
    ('{ name = "pane", pane = "loss" }', '"answer"\nask = { titel = "?" }', "ask.'titel' is no field; did you mean title?"),
    ('{ name = "pane", pane = "loss" }', '"answer"\nask = "?"', "ask is no table"),
    ('pane = "loss" }', 'pane = "lost" }', "did you mean loss?"),
    ('{ name = "pane", pane = "loss" }', f'{{ name = "text", tokens = 1{"0" * 400} }}', "give a whole number"),
    ('{ name = "pane", pane = "loss" }', '{ name = "text", tokens = 5, tokens_most = 2 }', "tokens is more than tokens_most"),
    ('{ name = "pane", pane = "loss" }', '{ name = "target", loss_least = 5, loss_most = 1 }', "loss_least is more than loss_most"),
    ('{ name = "pane", pane = "loss" }', '{ name = "answer", answers = [" "] }', "a blank text"),
])  # fmt: skip
def test_an_error_is_one_line_with_its_place(
    old: str, new: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new, 1))
    assert cli.main(["tour", "--check", str(file)]) == 2
    told = capsys.readouterr().err
    assert said in told and str(file) in told and told.count("\n") == 1


def test_a_byte_order_mark_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "marked.toml"
    file.write_text(GOOD, encoding="utf-8-sig")
    assert cli.main(["tour", "--check", str(file)]) == 0, capsys.readouterr().err


def test_files_that_are_no_lessons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in (
        ("big", b"#" * 300_000),
        ("bytes", b"\xff\xfe"),
        ("deep", b"a = " + b"[" * 5000),
        ("empty", b""),
        ("digits", b"a = " + b"1" * 10_000),
    ):
        file = tmp_path / name
        file.write_bytes(data)
        assert cli.main(["tour", "--check", str(file)]) == 2
        told = capsys.readouterr().err
        assert str(file) in told and told.count("\n") == 1 and "Traceback" not in told
    for name in (str(tmp_path), str(tmp_path / "none.toml"), "tokns"):
        assert cli.main(["tour", "--check", name]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["tour", "tokns"]) == 2
    assert "did you mean tokens?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("--model", "x"),
        ("--device", "cpu"),
        ("--weights", "half"),
        ("--prompt", "x"),
        ("--no-mouse",),
        ("--again",),
        ("--learner", "x"),
    ],
)
def test_no_option_is_ignored(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for only in ("--check", "--names"):
        assert cli.main(["tour", only, *words]) == 2
        told = capsys.readouterr().err
        assert f"{only} opens nothing, so {words[0]} would have no effect" in told and told.count("\n") == 1
    assert cli.main(["tour", "tokens", "--names"]) == 2 and "LESSON" in capsys.readouterr().err


def test_a_good_file_and_the_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lesson = parse(GOOD, write(tmp_path, GOOD), BY_ID)
    assert lesson.name == "mine" and lesson.steps[0].name == "step-1"
    assert cli.main(["tour", "--names"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name}: " in told for name in CHECKS) and "pane_loss" in told
    assert cli.main(["tour", "--names", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["checks"]) == set(CHECKS)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "title", "step", "part", "do", "check", "ask", "pane", "x"]), inner, max_size=4), max_leaves=12)  # fmt: skip


@given(VALUES, st.sampled_from(["step", "part", "check", "ask", "do"]))
def test_any_values_are_a_lesson_or_one_line(value: Any, at: str) -> None:
    from tui_llm.tour.lesson_file import _LessonParser

    part: dict[str, Any] = {"do": "x", "check": {"name": "pane", "pane": "loss"}}
    step: dict[str, Any] = {"title": "x", "part": [part]}
    fields: dict[str, Any] = {"name": "a", "title": "x", "step": [step]}
    {"step": fields, "part": step, "check": part, "ask": part, "do": part}[at][at] = value
    try:
        _LessonParser(Path("x.toml"), BY_ID).lesson(fields)
    except UserError as error:
        assert "\n" not in str(error) and str(error).startswith("x.toml: ")


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_progress_is_kept_for_each_lesson_and_learner(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = read(find("tokens"))
    for tour in (Tour(), Tour(tokens), Tour(tokens, "Ada"), Tour(tokens, "Bo\u0308b")):
        assert not tour.path.exists() and not tour.load()
        tour.move(1, Facts())
        tour.save()
        again = Tour(tour.lesson, tour.learner)
        assert again.load() and (again.step, again.part) == (0, 1)
    assert len({path(), path("tokens"), path("tokens", "Ada"), path("tokens", "Bo\u0308b")}) == 4
    assert cli.main(["tour", "tokens", "--again", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == "space" and not path("tokens").exists()
    assert path().exists() and path("tokens", "Ada").exists()


@pytest.mark.parametrize(("step", "part", "at"), [("gone", 0, (0, 1)), ("space", 99, (0, 1)), ("", 0, (6, 0))])
def test_a_lesson_that_was_edited_keeps_what_was_done(step: str, part: int, at: tuple[int, int]) -> None:
    tour = Tour(read(find("tokens")), "Ada")
    tour.path.parent.mkdir(parents=True)
    kept = {
        "version": 1,
        "step": step,
        "part": part,
        "done": [["space", 0], ["gone", 3], ["space", 99]],
        "learner": "Ada",
    }
    tour.path.write_text(json.dumps(kept))
    assert tour.load() and (tour.step, tour.part) == at and tour.done == {("space", 0)}


# ── checks with values ───────────────────────────────────────────────────────────────────────────────────────────


def make(name: str, **values: Any) -> Check:
    return CHECKS[name].make(values, "key")


def told(check: Check, now: Facts, done: bool, began: Facts | None = None) -> str:
    outcome = check(now, began or Facts())
    assert outcome.done is done and outcome.words, outcome
    return outcome.words


def test_text(engine: PipelineEngine) -> None:
    def at(prompt: str, **more: Any) -> Facts:
        return Facts(prompt=prompt, reading=engine.read(Request(prompt=prompt, **more)))

    told(make("text", exact="a b"), at("a b"), True)
    assert "a··b" in told(make("text", exact="a b"), at("a  b"), False)
    assert "“c”" in told(make("text", contains=["a", "c"]), at("a b"), False)
    told(make("text", tokens=9), at("a b"), False)
    told(make("text", tokens_most=1), at("a b"), False)
    told(make("text", not_ascii=True), at("a b"), False)
    told(make("text", not_ascii=True), at("é"), True)
    told(make("text", changed=True), at("a b"), False, at("a b"))
    special = at("Hi<|endoftext|>Bye", allow_special=True)
    assert at("Hi<|endoftext|>Bye").count >= 6 and special.count <= 5


@pytest.mark.parametrize(("typed", "done"), [("2", True), ("2.04", True), ("two", True), (" TWO ", True), ("3", False), ("", False), ("two!", False), ("nan", False)])  # fmt: skip
def test_answers(typed: str, done: bool) -> None:
    check = make("answer", answers=["two", 2], within=0.05, hint="count")
    said = told(check, Facts(typed={"key": typed}), done)
    assert done or not typed or "count" in said
    told(make("answer"), Facts(typed={"key": typed}), bool(typed))
    told(check, Facts(typed={"other": "2"}), False)


def test_screens_settings_and_runs() -> None:
    told(make("screen", screen="pairs"), Facts(screen="pairs"), True)
    assert "{x}" in told(make("screen", screen="pairs", keys="{x}"), Facts(), False)
    told(make("screen", screen="inside", view="lens"), Facts(screen="inside", view="attention"), False)
    told(make("pane", pane="loss"), Facts(place="loss"), True)
    assert "{pane_loss}" in told(make("pane", pane="loss"), Facts(), False)
    told(make("pane", pane="tokens", view="ids"), Facts(place="tokens"), False)
    assert "{cooler}" in told(make("sampler", temperature=0), Facts(), False)
    told(make("sampler", temperature=0.5, top_p=1), Facts(sampler=SamplerSettings(temperature=0.5)), True)
    told(make("generated", tokens=1), Facts(), False)
    fresh = RunFacts("tales", "running", 100, 400)
    told(make("run", steps=50), Facts(), False)
    assert "first evaluation" in told(make("run", steps=50), Facts(run=fresh), False)
    measured = RunFacts("tales", "running", 100, 400, 2.0)
    told(make("run", steps=50), Facts(run=measured), True)
    told(make("run", steps=150), Facts(run=measured), False)
    told(make("run", loss_below=1.5), Facts(run=measured), False)
    told(make("run", ended=True), Facts(run=measured), False)
    told(make("run", ended=True), Facts(run=RunFacts("tales", "finished", 400, 400, 1.0)), True)


# ── spaces of a target ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("prompt", "target", "said"), [
    ("The cat sat on the", " purple", ""),
    ("The cat sat on the", "  purple", "“··purple” (· is a space) has a doubled space: {target_space} removes one"),
    ("The cat sat on the", " deep  purple", "has a doubled space: {target} types it again"),
    ("The cat sat on the ", " purple", "ends with a space"),
    ("The cat sat on the ", "purple", ""),
    ("The cat sat on the", "purple", "has no leading space"),
    ("The cat sat on the", ", purple", ""),
    ("猫は", "マット", ""),
])  # fmt: skip
def test_step_5_2_takes_no_target_with_a_wrong_space(
    engine: PipelineEngine, prompt: str, target: str, said: str
) -> None:
    reading = engine.read(Request(prompt=prompt, target=Target(text=target)))
    now = Facts(prompt=prompt, reading=reading)
    assert said in wrong_space(now) and bool(said) is bool(wrong_space(now))
    outcome = CHECKS["unlikely_target"].make({}, "")(now, Facts())
    assert not (said and outcome.done) and (said in outcome.words or not said)
    wanted = CHECKS["target"].make({"target": target}, "")(now, Facts())  # what a lesson asks for by itself is right
    assert wanted.done


def test_the_words_of_the_lesson_on_tokens_are_the_tokens_that_it_says(engine: PipelineEngine) -> None:
    """It runs on nano without a network, so what it says of its words holds in nano's vocabulary."""
    lesson = tomllib.loads(find("tokens").read_text(encoding="utf-8"))
    parts = next(step["part"] for step in lesson["step"] if step["name"] == "words")
    exact = [part["check"]["exact"] for part in parts if "exact" in part["check"]]
    twice, capitals = ([token.text for token in engine.read(Request(prompt=text)).tokens.tokens] for text in exact)
    assert len(twice) == 2 and twice[1] == f" {twice[0]}"
    assert f"{twice[0]} and ·{twice[0]} are different tokens" in " ".join(part.get("then", "") for part in parts)
    assert len(capitals) > len(exact[1].split()), "a rare spelling takes more tokens"


def test_a_target_from_the_table_and_at_the_token_cursor(engine: PipelineEngine) -> None:
    picked = engine.read(Request(prompt="The cat sat on the ", target=Target(id=5)))
    assert not wrong_space(Facts(prompt="The cat sat on the ", reading=picked)) and not wrong_space(Facts())
    inside = engine.read(Request(prompt="The cat sat on the", position=2, target=Target(text="sat")))
    assert "no leading space" in wrong_space(Facts(prompt="The cat sat on the", reading=inside))


@pytest.mark.parametrize("name", ["tour", "tokens", "loss-curve"])
def test_a_lesson_begins_with_nano_and_goes_on_with_the_model_of_last_time(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened: list[str | None] = []
    monkeypatch.setattr(app, "open_app", lambda options, **_: opened.append(options.model) or 0)
    assert cli.main(["tour", name]) == 0 and cli.main(["tour", name, "--model", "x"]) == 0
    begun = Tour(read(find(name)))
    begun.move(1, Facts())
    begun.save()
    assert cli.main(["tour", name]) == 0
    assert opened == ["nano", "x", None]
