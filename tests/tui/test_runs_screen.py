"""The table of all runs, and the form for a new one."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import fake_run
import pytest
from helpers import drawn, make_app, unsafe, until
from textual.app import App
from textual.widgets import DataTable, Select

from tests import HANG
from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpora
from tui_llm.training.plan import launch
from tui_llm.training.plan.corpus_check import complete, corpus_size, kind
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRESETS
from tui_llm.tui.kit.columns import spark
from tui_llm.tui.runs import new_run
from tui_llm.tui.runs.new_run import NewRunScreen, free_name
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.runs.run_rows import row_of
from tui_llm.tui.runs.runs import RunsScreen

UNSET: Any = object()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path / "home"))
    return tmp_path


class ScreenApp(App[None]):
    """Opens one screen and keeps its result."""

    def __init__(self, screen: RunsScreen | NewRunScreen) -> None:
        super().__init__()
        self.shown, self.answer = screen, UNSET

    def on_mount(self) -> None:
        self.push_screen(self.shown, self._left)  # type: ignore[arg-type]

    def _left(self, answer: Any) -> None:
        self.answer = answer

    @property
    def text(self) -> str:
        return "\n".join(drawn(self))  # type: ignore[arg-type]


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_runs_are_listed_live_ones_first_then_the_newest() -> None:
    for at, name in enumerate(("oldest", "old", "new")):
        fake_run.made_at(fake_run.make(name, done=20), 1000 - at * 100)
    alive = fake_run.make("alive", state="running", done=5)
    fake_run.made_at(alive, 5000)
    app = ScreenApp(RunsScreen())
    with fake_run.alive(alive):
        async with app.run_test(size=(120, 24)) as pilot:
            await until(pilot, lambda: len(app.shown.query_one(DataTable).rows) == 4)

            def toys() -> list[str]:
                return [line for line in app.text.split("\n") if "toy" in line]

            await until(pilot, lambda: len(toys()) == 4)
            rows = toys()
            assert [row.split()[1] for row in rows] == ["alive", "new", "old", "oldest"]
            assert "● running" in rows[0] and "■ stopped" in rows[1]
            assert "20/100" in rows[1] and "5.094" in rows[1] and "3.000" in rows[1] and "█" in rows[1]


async def test_no_column_is_cut_on_a_narrow_terminal() -> None:
    fake_run.make("stories-toy", steps=20_000, done=20)
    for width, last in ((80, "size"), (120, "preset")):
        app = ScreenApp(RunsScreen())
        async with app.run_test(size=(width, 24)) as pilot:
            await until(pilot, lambda app=app: len(app.shown.query_one(DataTable).rows) == 1)
            table = app.shown.query_one(DataTable)
            # The columns fit once the list has its size, which may be after its rows.
            await until(
                pilot, lambda table=table, last=last: list(table.columns)[-1] == last and not table.max_scroll_x
            )


async def test_no_runs_says_how_to_make_one() -> None:
    app = ScreenApp(RunsScreen())
    async with app.run_test() as pilot:
        await until(pilot, lambda: "n starts one" in app.text)
        for key in ("enter", "o", "e", "S", "D"):  # there is no run to act on
            await pilot.press(key)
        assert app.answer is UNSET
        await pilot.press("n")
        assert app.answer == ("new", None)


@pytest.mark.parametrize(("key", "what"), [("enter", "watch"), ("o", "open")])
async def test_the_run_under_the_cursor_is_chosen(key: str, what: str) -> None:
    for name, age in (("first", 10), ("second", 20)):
        run = fake_run.make(name, done=3)
        fake_run.checkpoint(run, 3)
        fake_run.made_at(run, age)
    app = ScreenApp(RunsScreen())
    async with app.run_test() as pilot:
        await until(pilot, lambda: len(app.shown.query_one(DataTable).rows) == 2)
        await pilot.press("down", key)
        await until(pilot, lambda: app.answer is not UNSET)
        assert app.answer[0] == what and app.answer[1].name == "second"


async def test_space_marks_and_unmarks_runs() -> None:
    for at in range(5):
        fake_run.made_at(fake_run.make(f"run{at}", done=3), 10 * at + 10)
    app = ScreenApp(RunsScreen(["run1", "gone"]))
    async with app.run_test(size=(120, 24), notifications=True) as pilot:
        await until(pilot, lambda: len(app.shown.query_one(DataTable).rows) == 5)
        await until(pilot, lambda: "◆ run1" in app.text)
        await pilot.press("space")
        await until(pilot, lambda: "◆ run0" in app.text)
        await pilot.press("down", "space")
        await until(pilot, lambda: "◆ run1" not in app.text)
        await pilot.press("space", "down", "space", "down", "space")
        await until(pilot, lambda: app.text.count("◆") == 4)
        await pilot.press("down", "space")
        await until(pilot, lambda: "4 runs are marked already" in app.text)
        assert [run.name for run in app.shown.marked_runs] == ["run0", "run1", "run2", "run3"]  # type: ignore[union-attr]


async def test_the_chart_draws_marked_runs_over_the_watched_one() -> None:
    for name, age in (("first", 10), ("second", 20), ("third", 30)):
        fake_run.made_at(fake_run.make(name, done=3), age)
    second = Run(paths.runs_dir() / "second")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        pane = lab.query_one(TrainingPane)

        def screen() -> str:
            return "\n".join(drawn(app))

        await until(pilot, lambda: pane.snapshot and pane.snapshot.name == "first")
        await pilot.press("escape", "4", "z", "R")
        await until(pilot, lambda: app.screen is not lab and len(app.screen.query_one(DataTable).rows) == 3)
        await pilot.press("space", "down", "space", "escape")  # the watched run is not compared with itself
        await until(pilot, lambda: "+ second 5.85" in screen())
        assert "+ first" not in screen() and "third" not in screen()
        with fake_run.alive(second):  # the compared run has a worker, the watched one has none
            fake_run.add(second, 4, 4, loss=1.25)
            second.write_status("running")
            pane.reload()
            await until(pilot, lambda: "+ second 1.25" in screen())
            fake_run.add(second, 5, 5, loss=7.5)
            await until(pilot, lambda: "+ second 7.5" in screen())
        await pilot.press("R")
        await until(pilot, lambda: app.screen is not lab and "◆ second" in screen())
        await pilot.press("space", "escape")  # the run that wrote last is the first row
        await until(pilot, lambda: app.screen is lab and "+ second" not in screen())


async def test_a_run_without_a_checkpoint_is_not_opened() -> None:
    fake_run.make("tales", done=3)
    app = ScreenApp(RunsScreen())
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: len(app.shown.query_one(DataTable).rows) == 1)
        await pilot.press("o")
        await until(pilot, lambda: "no checkpoint yet" in app.text)
        assert app.answer is UNSET


async def test_a_run_is_deleted_only_when_that_is_confirmed() -> None:
    run = fake_run.make("tales", done=3)
    app = ScreenApp(RunsScreen())
    async with app.run_test() as pilot:
        await until(pilot, lambda: len(app.shown.query_one(DataTable).rows) == 1)
        for refusal in ("n", "escape", "enter"):  # the focus is on "No"
            await pilot.press("D")
            await until(pilot, lambda: "Delete tales" in app.text)
            await pilot.press(refusal)
            await until(pilot, lambda: app.screen is app.shown)
            assert run.exists()
        await pilot.press("D", "y")
        await until(pilot, lambda: "n starts one" in app.text)
        assert not run.path.exists()


async def test_a_run_that_is_being_trained_is_not_deleted() -> None:
    run = fake_run.make("tales", done=3, state="running")
    app = ScreenApp(RunsScreen())
    with fake_run.alive(run):
        async with app.run_test(notifications=True) as pilot:
            await until(pilot, lambda: len(app.shown.query_one(DataTable).rows) == 1)
            await pilot.press("D")
            await until(pilot, lambda: "tales is being" in app.text)
            assert app.screen is app.shown and run.exists()


async def test_resume_and_stop_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(launch, "start", lambda run: asked.append(("start", run.name)))
    monkeypatch.setattr(launch, "stop", lambda run: asked.append(("stop", run.name)))
    fake_run.make("tales", done=3, state="running")
    app = ScreenApp(RunsScreen())
    async with app.run_test() as pilot:
        await until(pilot, lambda: len(app.shown.query_one(DataTable).rows) == 1)
        await pilot.press("e", "S")
        await until(pilot, lambda: sorted(asked) == [("start", "tales"), ("stop", "tales")])


@pytest.mark.parametrize("size", [(1, 1), (80, 24), (300, 60)])
async def test_both_screens_fit_any_terminal(size: tuple[int, int]) -> None:
    run = fake_run.make("tales", done=3, state="failed", message="\x1b[31m[/]")
    (run.path / "config.json").write_bytes(b'"\x1b]0;x\x07')
    for screen in (RunsScreen(), NewRunScreen("/tmp/\x1b[31m[red]x\u202e")):
        app = ScreenApp(screen)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            assert not unsafe(drawn(app))  # type: ignore[arg-type]


def test_a_row_has_the_loss_of_its_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also while the run goes on: on the screen, and in the command line's list."""
    run, last = fake_run.make("tales", steps=1000, done=10, state="running"), Run.last_metric

    def meanwhile(self: Run) -> Metric | None:
        found = last(self)
        assert found is not None
        fake_run.add(run, found.step + 1, found.step + 1)
        return found

    monkeypatch.setattr(Run, "last_metric", meanwhile)
    row = row_of(run, None, ())
    assert main(["runs", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["runs"][0]
    assert 10 <= row.step < printed["step"]
    for step, loss in ((row.step, row.loss), (printed["step"], printed["loss"])):
        assert loss == json.loads(fake_run.metric_line(step))["loss"]


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert spark((0.0, 7.0, 3.0)) == "▁█▄"
    assert spark((2.0, 2.0)) == "▁▁"
    assert spark(()) == ""


# ── the form ─────────────────────────────────────────────────────────────────────────────────────────────────────


def set_field(app: ScreenApp, name: str, value: str) -> None:
    app.shown.query_one(f"#{name}").value = value  # type: ignore[attr-defined]


def says(app: ScreenApp, name: str) -> str:
    return str(app.shown.query_one(f"#{name}-note").render())  # type: ignore[attr-defined]


async def test_each_wrong_field_says_why_and_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "create", lambda *_, **__: pytest.fail("it must not start"))
    fake_run.make("taken")
    app = ScreenApp(NewRunScreen())
    async with app.run_test(size=(80, 24)) as pilot:
        for name, value, why in (
            ("steps", "many", "whole number"),
            ("steps", "0", "1 or more"),
            ("batch_size", "-3", "1 or more"),
            ("block_size", "1", "2 or more"),
            ("learning_rate", "nan", "number from 0 up"),
            ("learning_rate", "", "a number"),
            ("seed", "1.5", "whole number"),
            ("name", "../up", "can't name a run"),
            ("name", "taken", "already"),
            ("corpus", "/no/such/place", "no such file"),
        ):
            set_field(app, name, value)
            await until(pilot, lambda name=name, why=why: why in says(app, name))
            assert says(app, name).startswith("✗")
            await pilot.press("ctrl+s")
            await pilot.pause()
            assert app.answer is UNSET
        set_field(app, "steps", "10")
        await until(pilot, lambda: not says(app, "steps").startswith("✗"))
        await pilot.press("escape")
        await until(pilot, lambda: app.answer is None)


async def test_a_preset_fills_the_fields_and_the_name_follows(tmp_path: Path) -> None:
    app = ScreenApp(NewRunScreen(str(tmp_path / "My Tales!.txt")))
    async with app.run_test(size=(80, 24)) as pilot:
        field = app.shown.query_one
        assert field("#name").value == "my-tales-toy"  # type: ignore[attr-defined]
        field("#preset", Select).value = "nano"
        await until(pilot, lambda: field("#name").value == "my-tales-nano")  # type: ignore[attr-defined]
        assert field("#steps").value == str(PRESETS["nano"].steps)  # type: ignore[attr-defined]
        assert float(field("#learning_rate").value) == PRESETS["nano"].learning_rate  # type: ignore[attr-defined]
        set_field(app, "name", "mine")
        field("#preset", Select).value = "toy"
        await until(pilot, lambda: field("#steps").value == str(PRESETS["toy"].steps))  # type: ignore[attr-defined]
        assert field("#name").value == "mine"  # type: ignore[attr-defined]


async def test_a_valid_form_creates_and_starts_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Run] = []
    monkeypatch.setattr(launch, "start", started.append)
    (tmp_path / "tales.txt").write_text("Once upon a time" * 100)
    app = ScreenApp(NewRunScreen(str(tmp_path / "tales.txt")))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "bytes of text" in says(app, "corpus"))
        set_field(app, "steps", "77")
        app.shown.query_one("#device", Select).value = "cpu"
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.answer is not UNSET)
    config = app.answer.config()
    assert [run.name for run in started] == ["tales-toy"] == [app.answer.name]
    assert config.corpus == (str(tmp_path / "tales.txt"),) and config.preset == "toy" and config.device == "cpu"
    assert config.settings.steps == 77 and config.settings.batch_size == PRESETS["toy"].batch_size


@pytest.mark.parametrize("then", ["good", "bad", "edited"])
async def test_a_start_before_the_text_is_checked_waits_for_it(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Run] = []
    monkeypatch.setattr(launch, "start", started.append)
    text, check, may = tmp_path / "tales.txt", new_run.describe_corpora, threading.Event()

    def describe(*arguments: Any) -> str:
        may.wait(HANG)
        return check(*arguments)

    monkeypatch.setattr(new_run, "describe_corpora", describe)
    text.write_text("" if then == "bad" else "Once upon a time" * 100)
    app = ScreenApp(NewRunScreen(str(text)))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "still being checked; then the run starts" in app.text)
        assert not started
        if then == "edited":  # the start was meant for the other text
            set_field(app, "corpus", f'"{text}"')
            await until(pilot, lambda: "then the run starts" not in app.text)
        may.set()
        if then == "edited":
            await until(pilot, lambda: "bytes of text" in says(app, "corpus"))
            assert not started and app.answer is UNSET
        elif then == "good":
            await until(pilot, lambda: app.answer is not UNSET)
            assert [run.name for run in started] == ["tales-toy"]
        else:
            await until(pilot, lambda: "corpus: " in app.text and "still being checked" not in app.text)
            assert not started and app.answer is UNSET


async def test_a_worker_that_cannot_be_started_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(run: Run) -> None:
        raise UserError("can't write there [/]")

    monkeypatch.setattr(launch, "start", start)
    (tmp_path / "tales.txt").write_text("Once upon a time" * 100)
    app = ScreenApp(NewRunScreen(str(tmp_path / "tales.txt")))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "bytes of text" in says(app, "corpus"))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "can't write there [/]" in app.text)
        assert app.answer is UNSET and not (tmp_path / "home" / "runs" / "tales-toy").exists()


def test_a_free_name_is_free_and_can_name_a_run() -> None:
    assert free_name("/x/Tales & more.txt", "toy") == "tales-more-toy"
    fake_run.make("tales-more-toy")
    assert free_name("/x/Tales & more.txt", "toy") == "tales-more-toy-2"
    assert free_name("\x1b[31m/…", "toy") == "toy"


# ── the check of the corpus ──────────────────────────────────────────────────────────────────────────────────────


def test_valid_corpora_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ein Schiff fährt über das Meer 🚢 " * 3000)
    assert corpus_size(str(tmp_path / "a.txt")) == (tmp_path / "a.txt").stat().st_size
    assert corpus_size(str(tmp_path)) is None


def test_named_corpora_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, meaning in corpora.NAMES.items():
        assert corpus_size(name) is None and kind(f" {name} ") == meaning
        assert complete(name[:3]) == name and complete(name) is None
        (tmp_path / name).write_text("mine")
        assert corpus_size(name) == 4
    assert kind(str(tmp_path)) == "a folder"


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "empty"), (b" \n\n", "empty"), (b"PNG\0\0", "not text"), (b"caf\xe9 au lait", "not UTF-8")],
)
def test_invalid_corpora_are_refused(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError, match=why):
        corpus_size(str(tmp_path / "a.txt"))


def test_a_missing_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for place, why in (("", "type the path"), ("/no/such", "no such"), (str(tmp_path / "none"), "nothing to read"),
                       ("/dev/null", "neither"), ("a\0b", "can't be a path"), ("~nobody-here/x", "can't be a path"),
                       ("x" * 5000, "can't be a path")):  # fmt: skip
        with pytest.raises(UserError, match=why):
            corpus_size(place)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("text")

    def refuse(*_: Any, **__: Any) -> Any:  # root ignores permissions, so a file mode would not help
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="no permission to read"):
        corpus_size(str(tmp_path / "a.txt"))


def test_a_path_is_completed_only_by_names_that_show_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "tales").mkdir()
    (tmp_path / "x\x1b[31mevil.txt").write_text("")
    (tmp_path / ".hidden").write_text("")
    assert complete(f"{tmp_path}/ta") == f"{tmp_path}/tales/"
    assert complete(f"{tmp_path}/x") is None
    assert complete(f"{tmp_path}/") == f"{tmp_path}/tales/"
    assert complete("/no/such/place") is None


async def test_R_and_Enter_show_the_training_pane() -> None:
    for name, age in (("first", 10), ("second", 20)):
        fake_run.made_at(fake_run.make(name, done=3), age)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        pane = lab.query_one(TrainingPane)
        await until(pilot, lambda: pane.snapshot and pane.snapshot.name == "first")
        assert not pane.display  # one pane at a time, and it is not this one
        await pilot.press("escape", "R")
        await until(pilot, lambda: app.screen is not lab and len(app.screen.query_one(DataTable).rows) == 2)
        await pilot.press("down", "enter")
        await until(pilot, lambda: pane.snapshot and pane.snapshot.name == "second" and pane.display)
        assert lab.panes.current == "training"
