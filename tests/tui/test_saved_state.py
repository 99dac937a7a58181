"""What comes back at the next start: read and written whole, merged by key, set aside when damaged."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from helpers import answered, until
from hypothesis import given
from hypothesis import strategies as st

from tests import HANG
from tui_llm.commands.shared.app import parser
from tui_llm.common import files, paths
from tui_llm.common.errors import UserError
from tui_llm.facts.request import Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.hub.lookup import lasting_name
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.themes import DARK, LIGHT
from tui_llm.tui.state import saved_state, state_file
from tui_llm.tui.state.lab import Lab
from tui_llm.tui.state.saved_state import FLAGS, SavedState
from tui_llm.tui.state.state_file import StateWriter

FIRST = saved_state.first("Once", "nano", DARK, "logits")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the disk is, the last write is waited for."""
    monkeypatch.setattr(state_file, "LAST", HANG)


def written() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(paths.state_path().read_text())
    return found


def write(state: SavedState, saved: SavedState | None = None) -> StateWriter:
    writer = StateWriter(saved or SavedState(), FIRST)
    writer.note(state)
    writer.finish()
    return writer


def begun(engine: FakeEngine | None = None) -> LabApp:
    """The app as `tui-llm` starts it, without its terminal."""
    saved, problem = state_file.load()
    app = LabApp(
        lambda: engine or FakeEngine(),
        model=saved.model or "nano",
        prompt="Once" if saved.prompt is None else saved.prompt,
        saved=saved,
        writer=StateWriter(saved, FIRST),
    )
    app.problem_at_start = problem
    if saved.model is not None:
        app.lab_screen.fallback_model = "nano"
    return app


# ── the values ───────────────────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
targets = st.one_of(
    st.none(),
    st.builds(Target, text=texts.filter(bool)),
    st.builds(Target, id=st.integers(0, 10**9)),
    st.just(Target(own=True)),
)
states = st.builds(
    SavedState,
    prompt=texts,
    model=texts,
    target=targets,
    target_for=texts,
    target_model=texts,
    sampler=st.builds(SamplerSettings, st.floats(0, 9), st.integers(0, 99), st.floats(0, 1), st.floats(0, 1)),
    tokenizer=texts,
    flags=st.dictionaries(st.sampled_from(FLAGS), st.booleans()),
    theme=texts,
    pane=st.sampled_from(("tokens", "loss")),
)


@given(states)
def test_the_values_of_a_state_give_that_state(state: SavedState) -> None:
    found = saved_state.parse(json.loads(json.dumps({**saved_state.values(state), "version": 1})))
    kept = dataclasses.replace(state, target_for="", target_model="") if state.target is None else state
    assert found == kept


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        {"version": 2},
        {"version": 1, "prompt": 3},
        {"version": 1, "target": [1]},
        {"version": 1, "target": {"id": True}},
        {"version": 1, "sampler": {"top_p": 7.0}},
        {"version": 1, "sampler": {"top_k": 1.5}},
        {"version": 1, "sampler": {"temperature": "hot"}},
        {"version": 1, "zoomed": "yes"},
        {"version": 1, "sampler": {"temperature": 10**400}},
        {"version": 1, "target": {"id": -5}},
        {"version": 1, "target": {"id": 10**400}},
    ],
)
def test_what_is_no_state_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError):
        saved_state.parse(wrong)


def test_names_that_are_not_known_any_more_are_left_out() -> None:
    lab = Lab("a")
    saved = saved_state.parse({"version": 1, "pane": "gone", "tokenizer": "gone", "theme": "gone", "other": [1]})
    saved_state.restore(saved, lab)
    assert saved.pane is None and lab.tokenizer is None


def test_a_target_of_another_text_comes_back_as_left_over() -> None:
    lab = Lab("The cat")
    lab.choose_target(Target(text=" sat"))
    saved = saved_state.of_lab(lab, "nano")
    same, other = Lab("The cat"), Lab("The dog")
    for one in (same, other):
        saved_state.restore(saved, one)
        assert one.target == Target(text=" sat")
    assert not same.target_left_over and other.target_left_over
    assert saved_state.of_lab(other, "nano").target_for != saved.target_for, "and stays so"


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_what_changed_is_written() -> None:
    write(FIRST)
    assert not paths.state_path().exists(), "nothing was changed"
    write(dataclasses.replace(FIRST, prompt="The cat"))
    assert written() == {"version": 1, "prompt": "The cat"}


def test_two_apps_keep_each_others_half_and_what_they_do_not_know() -> None:
    files.write_json(paths.state_path(), {"version": 1, "prompt": "before", "of a later version": [1]})
    saved, problem = state_file.load()
    assert saved.prompt == "before" and not problem
    both = dataclasses.replace(FIRST, prompt="before")
    write(dataclasses.replace(both, theme=LIGHT), saved)  # each began with the same file
    write(dataclasses.replace(both, prompt="after"), saved)
    assert written() == {"version": 1, "prompt": "after", "of a later version": [1], "theme": LIGHT}


def _changes(home: str, key: str, count: int) -> None:
    os.environ["TUI_LLM_HOME"] = home
    files.LOCKED = HANG  # on a busy machine the others may have the lock for a long time
    for number in range(count):
        state_file.merge({key: str(number)})


def test_processes_that_write_at_once_lose_nothing(home: Path) -> None:
    keys, count = ("prompt", "model", "theme"), 20
    context = multiprocessing.get_context("fork")  # a new interpreter each would import Textual
    processes = [context.Process(target=_changes, args=(str(home), key, count)) for key in keys]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert written() == {"version": 1, **dict.fromkeys(keys, str(count - 1))}


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"[1]", b'{"version": 99}', b"\xff\x00", b'{"version": 1, "prompt": []}']
)
def test_a_damaged_or_foreign_file_is_set_aside_and_nothing_is_lost(damaged: bytes) -> None:
    path = paths.state_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(damaged)
    saved, problem = state_file.load()
    assert saved == SavedState() and "the old file is kept as state-damaged.json" in problem and "\n" not in problem
    assert not path.exists() and path.with_name("state-damaged.json").read_bytes() == damaged
    path.write_bytes(damaged)
    assert "state-damaged-2.json" in state_file.load()[1]
    assert state_file.load() == (SavedState(), "")


def test_a_folder_in_its_place_is_told_and_kept(home: Path) -> None:
    paths.state_path().mkdir(parents=True)
    (paths.state_path() / "mine").write_text("mine")
    saved, problem = state_file.load()
    assert saved == SavedState() and problem
    assert (home / "state-damaged.json" / "mine").read_text() == "mine"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EROFS, "Read-only")])
def test_a_full_disk_and_a_read_only_home_lose_nothing(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    write(dataclasses.replace(FIRST, prompt="kept"))
    saved, told, done = state_file.load()[0], [], threading.Event()
    writer = StateWriter(saved, FIRST)

    def warn(line: str) -> None:
        told.append(line)
        done.set()

    writer.warn = warn

    def full(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("tui_llm.common.storage.write_bytes", full)
    writer.note(dataclasses.replace(FIRST, prompt="new"))
    done.wait()
    assert written()["prompt"] == "kept"
    (line,) = told
    assert "the state can't be saved" in line and "TUI_LLM_HOME" in line and "\n" not in line


def test_a_state_that_could_not_be_written_is_written_once_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = StateWriter(SavedState(), FIRST)
    refuse = [True]
    real = state_file.merge

    def merge(changes: dict[str, Any]) -> None:
        if refuse:
            refuse.clear()
            raise UserError("no space")
        real(changes)

    monkeypatch.setattr(state_file, "merge", merge)
    warned = threading.Event()
    writer.warn = lambda _line: warned.set()
    writer.note(dataclasses.replace(FIRST, prompt="new"))
    warned.wait()
    writer.note(dataclasses.replace(FIRST, prompt="new", theme=LIGHT))
    writer.finish()
    assert written() == {"version": 1, "prompt": "new", "theme": LIGHT} and not writer.problem


def test_a_models_name_opens_it_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert lasting_name("mine") == lasting_name("./mine") == str(tmp_path / "mine")
    assert lasting_name("nano") == "nano" and lasting_name("run:x") == "run:x" and lasting_name("gone") == "gone"
    assert lasting_name("a\0b") == "a\0b" and lasting_name("~nobody-here/x") == "~nobody-here/x"


def test_an_option_that_is_not_given_is_known_from_one_that_is() -> None:
    top = parser()
    assert top.parse_args([]).model is None and top.parse_args([]).prompt is None and not top.parse_args([]).fresh
    given = top.parse_args(["--model", "nano", "--prompt", "", "--fresh"])
    assert given.model == "nano" and given.prompt == "" and given.fresh


# ── the app ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_everything_comes_back_at_the_next_start() -> None:
    app = begun()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press(*" cat", "escape", "1", "v", "z", "d", "right_square_bracket")
        await answered(pilot, lab)
        await pilot.press("t")
        await until(pilot, lambda: app.screen is not lab and app.screen.focused)
        await pilot.press("ctrl+u", *" moon", "enter")
        await until(pilot, lambda: app.screen is lab)
        lab.models.open("other")
        await until(pilot, lambda: lab.weights is not None and lab.weights.name == "other")
        await answered(pilot, lab)
        before = lab.lab
        await until(pilot, lambda: "model" in state_file.load()[1] or state_file.load()[0].model == "other")
    assert app.writer is not None
    app.writer.finish()
    again = begun()
    async with again.run_test(size=(80, 24)) as pilot:
        lab = again.lab_screen
        await answered(pilot, lab)
        assert lab.weights is not None and lab.weights.name == "other"
        now = lab.lab
        for name in ("prompt", "sampler", "target", "tokenizer", "allow_special", "start_token", "chat"):
            assert getattr(now, name) == getattr(before, name), name
        assert now.prompt == lab.prompt.prompt_text == "Once cat" and now.target == Target(text=" moon")
        assert now.sampler.temperature == 0.9 and now.tokenizer == "gpt2"
        assert again.theme == LIGHT and lab.panes.current == "tokens" and lab.zoomed
        assert not now.target_left_over


async def test_a_model_that_is_gone_is_told_and_nano_opens() -> None:
    files.write_json(paths.state_path(), {"version": 1, "model": "missing", "target": {"id": 3, "model": "missing"}})
    app = begun()
    async with app.run_test(size=(120, 30)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        assert lab.weights is not None and lab.weights.name == "nano" and lab.lab.target is None
        notes = " ".join(note.message for note in app._notifications)
        assert "nano is opened, not missing as last time: there is no model" in notes
    assert app.writer is not None
    app.writer.finish()
    assert written()["model"] == "nano"


async def test_a_damaged_file_is_told_on_the_screen() -> None:
    paths.state_path().parent.mkdir(parents=True)
    paths.state_path().write_text("{")
    app = begun()
    async with app.run_test(size=(120, 30)) as pilot:
        await answered(pilot, app.lab_screen)
        await until(pilot, lambda: "state-damaged" in " ".join(note.message for note in app._notifications))


async def test_a_model_that_never_opened_is_not_remembered() -> None:
    app = begun()
    app.lab_screen.model = "missing"
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.lab_screen.top_line.problem)
        await pilot.press("escape", "2", "3")
        await pilot.pause()
    assert app.writer is not None
    app.writer.finish()
    assert "model" not in written() and written()["pane"] == "loss"
