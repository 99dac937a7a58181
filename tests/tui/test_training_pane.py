"""The Training pane on hand-written run directories, and once on a real worker."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import fake_run
import pytest
from helpers import drawn, unsafe, until
from textual.app import App, ComposeResult
from textual.widgets import Static

from tests import HANG
from tui_llm.common import paths
from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import from_fields
from tui_llm.training.run.snapshot import RunReader
from tui_llm.training.run.status import Status
from tui_llm.tui.runs import pane_lines, run_watcher
from tui_llm.tui.runs.loss_chart import LossChart
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.runs.run_watcher import RunWatcher
from tui_llm.tui.state.messages import CheckpointSaved, ModelChosen

HOSTILE = "a\x1b[31m[red]b[/]\u202e\x9b1m[link='x \x07"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    return tmp_path


class PaneApp(App[None]):
    CSS = "TrainingPane { border: round $primary; }"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[ModelChosen | CheckpointSaved] = []

    def compose(self) -> ComposeResult:
        yield TrainingPane()

    def on_mount(self) -> None:
        self.pane.focus()

    @property
    def pane(self) -> TrainingPane:
        return self.query_one(TrainingPane)

    @property
    def state(self) -> str:
        return self.pane.snapshot.status.state if self.pane.snapshot else ""

    @property
    def text(self) -> str:
        return "\n".join(drawn(self))  # type: ignore[arg-type]

    def on_model_chosen(self, message: ModelChosen) -> None:
        self.asked.append(message)

    def on_checkpoint_saved(self, message: CheckpointSaved) -> None:
        self.asked.append(message)


def resting(app: PaneApp) -> bool:
    timer = app.query_one(RunWatcher)._timer
    return timer is not None and not timer._active.is_set()


# ── display ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_a_run_it_says_what_to_press_and_every_key_is_harmless() -> None:
    app = PaneApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "n  starts one" in app.text)
        await pilot.press("p", "S", "e", "O", "l")
        await pilot.pause()
        assert resting(app)


async def test_what_another_program_does_is_noticed_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is made, resumed and deleted elsewhere."""
    monkeypatch.setattr(run_watcher, "LOOK", 0.02)
    app = PaneApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "n  starts one" in app.text)
        await until(pilot, lambda: app.query_one(RunWatcher)._seen is not None)
        run = fake_run.make("elsewhere", done=20)
        await until(pilot, lambda: app.state == "stopped" and "elsewhere" in app.text)
        assert resting(app)
        await until(pilot, lambda: (app.query_one(RunWatcher)._seen or (None,))[0] == run.path / "status.json")
        with fake_run.alive(run):
            run.write_status("running")
            await until(pilot, lambda: app.state == "running" and not resting(app))
        await until(pilot, lambda: app.state == "died")
        await until(pilot, lambda: resting(app))
        run.delete()
        await until(pilot, lambda: "n  starts one" in app.text)


async def test_a_late_look_for_runs_hides_no_change_of_the_run_that_is_watched_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk is slow: a look where there was no run ends when a run has been found and looked at."""
    monkeypatch.setattr(run_watcher, "LOOK", HANG)  # this test looks
    began, go_on, runs = threading.Event(), threading.Event(), paths.runs_dir

    def slow() -> Path:
        began.set()
        assert go_on.wait(HANG)
        return runs()

    app = PaneApp()
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "n  starts one" in app.text)
            watcher = app.query_one(RunWatcher)
            with monkeypatch.context() as disk:
                disk.setattr(run_watcher, "paths", SimpleNamespace(runs_dir=slow))
                look = RunWatcher._look.__wrapped__  # type: ignore[attr-defined]
                late = asyncio.create_task(asyncio.to_thread(look, watcher))
                await until(pilot, began.is_set)
            run = fake_run.make("elsewhere", done=20)
            watcher.find()
            await until(pilot, lambda: app.state == "stopped")
            watcher._look()
            await until(pilot, lambda: watcher._seen is not None)
            go_on.set()
            await late
            run.write_status("finished")
            os.utime(run.path / "status.json", (1, 1))  # another time, however coarse the disk's clock is
            watcher._look()
            await until(pilot, lambda: app.state == "finished")
    finally:
        go_on.set()


async def test_the_pane_shows_the_runs_status_and_metrics() -> None:
    run = fake_run.make("tales", steps=200, done=50, corpus="/texts/tales.txt", message="saved at step 50 of 200")
    fake_run.sample(run, 50, " there was a ship")
    app = PaneApp()
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.state == "stopped")
        wanted = ("■ stopped  tales", "tales.txt · preset toy · cpu · 123 K parameters · V = 257", "step 50 of 200",
                  "25 %", "loss 4.033", "validation 3.000", "lr 1.00e-03", "tokens/s 1,000",
                  "e resumes it  saved at step 50 of 200", "ln V = 5.55", "Once there was a ship")  # fmt: skip
        await until(pilot, lambda: all(words in app.text.replace("\N{NO-BREAK SPACE}", " ") for words in wanted))
        assert resting(app)  # without a worker there is no timer


async def test_it_finds_the_run_that_is_alive_before_a_newer_one_that_is_not() -> None:
    alive, newer = fake_run.make("alive", state="running", done=3), fake_run.make("newer", done=9)
    fake_run.made_at(alive, 1000)
    fake_run.made_at(newer, 10)
    with fake_run.alive(alive):
        app = PaneApp()
        async with app.run_test() as pilot:
            await until(pilot, lambda: app.state == "running")
            assert app.pane.snapshot and app.pane.snapshot.name == "alive"
            assert not resting(app)


async def test_it_follows_a_run_and_says_when_its_worker_was_killed() -> None:
    run = fake_run.make("tales", steps=100, done=10, state="running")
    app = PaneApp()
    with fake_run.alive(run) as worker:
        async with app.run_test(size=(90, 24)) as pilot:
            await until(pilot, lambda: "step 10 of 100" in app.text)
            fake_run.add(run, 11, 40)
            await until(pilot, lambda: "step 40 of 100" in app.text)
            assert app.pane.snapshot and len(app.pane.snapshot.train) == 40
            worker.kill()
            await until(pilot, lambda: "✗ died" in app.text)
            await until(pilot, lambda: "e resumes it" in app.text)
            await until(pilot, lambda: resting(app))


@pytest.mark.parametrize("before", [True, False])
def test_the_step_is_the_one_whose_loss_is_shown(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the run goes on while it is read, as a small one does between any two of its files."""
    run, status = fake_run.make("tales", steps=100, done=10, state="running"), Run.status
    reader = RunReader(run)
    assert reader.read().status.step == 10

    def meanwhile(self: Run) -> Status:
        found = None if before else status(self)
        fake_run.add(run, 11, 40)
        return found or status(self)

    monkeypatch.setattr(Run, "status", meanwhile)
    snapshot = reader.read()
    assert snapshot.last and snapshot.status.step == snapshot.last.step == snapshot.train[-1][0] == 40


async def test_a_resumed_run_that_was_cut_back_loses_what_was_never_saved() -> None:
    run = fake_run.make("tales", done=40)
    reader = RunReader(run)
    assert len(reader.read().train) == 40
    fake_run.add(run, 41, 41, loss=77.0)
    assert reader.read().train[-1] == (41, 77.0)
    part = run.path / "part"
    part.write_bytes(b"".join(fake_run.metric_line(step) for step in range(1, 31)))
    part.replace(run.metrics_path)  # replaced, as by the worker
    snapshot = reader.read()
    assert [step for step, _ in snapshot.train] == list(range(1, 31)) and snapshot.status.step == 30


@pytest.mark.parametrize("size", [(1, 1), (20, 5), (80, 24), (500, 150)])
async def test_hostile_text_stays_text_at_any_size(size: tuple[int, int]) -> None:
    run = fake_run.make("tales", done=20, state="failed", message=HOSTILE, corpus=f"/texts/{HOSTILE}.txt")
    fake_run.sample(run, 20, HOSTILE * 50, prompt=HOSTILE)
    app = PaneApp()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.state == "failed")
        await pilot.pause()
        assert not unsafe(drawn(app))  # type: ignore[arg-type]
        if size[0] >= 80:
            await until(pilot, lambda: "a␛[31m[red]b[/]\\u202e" in app.text)


async def test_resizing_never_breaks_it() -> None:
    fake_run.make("tales", done=30)
    app = PaneApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.state == "stopped")
        for size in ((1, 1), (200, 60), (30, 3), (2, 50), (100, 30)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        await until(pilot, lambda: "step 30 of 100" in app.text)


async def test_non_finite_losses_are_shown_as_words() -> None:
    run = fake_run.make("tales", done=3)
    with run.metrics_path.open("ab") as file:
        file.write(b'{"step":4,"loss":NaN,"lr":0.1,"grad_norm":Infinity,"tokens_per_second":NaN}\nnot a line\n{}\n')
    app = PaneApp()
    async with app.run_test(size=(90, 24)) as pilot:
        await until(pilot, lambda: all(word in app.text for word in ("NaN", "∞", "step 4 of 100")))


async def test_a_damaged_run_says_so() -> None:
    run = fake_run.make("tales", done=3)
    (run.path / "config.json").write_text("{")
    app = PaneApp()
    async with app.run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: app.state == "failed")
        await until(pilot, lambda: "may be damaged" in " ".join(app.text.split()))


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_p_pauses_and_continues() -> None:
    run = fake_run.make("tales", done=3, state="running")
    app = PaneApp()
    with fake_run.alive(run):
        async with app.run_test() as pilot:
            await until(pilot, lambda: app.state == "running")
            await pilot.press("p")
            await until(pilot, lambda: run.control().get("paused") is True)
            await until(pilot, lambda: "pausing: it saves first" in app.text)
            run.write_status("paused", "paused at step 3")  # the worker's response
            await until(pilot, lambda: "‖ paused" in app.text)
            await pilot.press("p")
            await until(pilot, lambda: run.control().get("paused") is False)


async def test_S_sends_sigterm_to_the_holder_of_the_lock() -> None:
    run = fake_run.make("tales", done=3, state="running")
    app = PaneApp()
    with fake_run.alive(run) as worker:
        async with app.run_test() as pilot:
            await until(pilot, lambda: app.state == "running")
            await pilot.press("S")
            await until(pilot, lambda: worker.poll() is not None)
            assert worker.returncode == -signal.SIGTERM


async def test_e_starts_the_worker_of_a_run_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(launch, "start", lambda run: started.append(run.name))
    fake_run.make("tales", done=3, state="running")
    app = PaneApp()
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.state == "died")
        await pilot.press("e")
        await until(pilot, lambda: started == ["tales"])


async def test_O_opens_the_run_once_there_is_a_checkpoint_and_new_ones_are_announced() -> None:
    run = fake_run.make("tales", done=3, state="running")
    app = PaneApp()
    with fake_run.alive(run):
        async with app.run_test() as pilot:
            await until(pilot, lambda: app.state == "running")
            await pilot.press("O")
            await pilot.pause()
            assert app.asked == []
            fake_run.checkpoint(run, 3)
            await until(pilot, lambda: app.asked)
            assert isinstance(app.asked[0], CheckpointSaved) and app.asked[0].step == 3
            await pilot.press("O")
            await until(pilot, lambda: len(app.asked) == 2)
            assert isinstance(app.asked[1], ModelChosen) and app.asked[1].model == "run:tales"


async def test_l_makes_the_loss_axis_logarithmic_and_back() -> None:
    fake_run.make("tales", done=30)
    app = PaneApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.state == "stopped")
        await pilot.press("l")
        await until(pilot, lambda: "log axis" in app.text)
        await pilot.press("l")
        await until(pilot, lambda: "log axis" not in app.text)


async def test_a_cycles_through_the_averages_and_back() -> None:
    fake_run.make("tales", steps=400, done=100)
    app = PaneApp()
    async with app.run_test(size=(80, 30)) as pilot:
        await until(pilot, lambda: app.state == "stopped")
        for named in ("mean of 4 steps (1 %)", "mean of 20 steps (5 %)"):
            await pilot.press("a")
            await until(pilot, lambda named=named: named in app.text)
        await pilot.press("a")
        await until(pilot, lambda: "mean of" not in app.text)


async def test_plus_and_minus_zoom_the_steps_and_arrows_move_them() -> None:
    fake_run.make("tales", steps=1001, done=1001)
    app = PaneApp()
    async with app.run_test(size=(80, 30)) as pilot:
        await until(pilot, lambda: app.state == "stopped")
        for key, named in (("+", "last half"), ("=", "last tenth"), ("shift+left", "steps 851 to 951"), ("shift+right", "last tenth"),
                           ("-", "last half")):  # fmt: skip
            await pilot.press(key)
            await until(pilot, lambda named=named: named in app.text)
        await pilot.press("-")
        await until(pilot, lambda: "last half" not in app.text)


async def test_the_baselines_are_those_of_the_worker() -> None:
    fake_run.make("tales", done=20, unigram_entropy=4.5, bigram_entropy=2.5, floor=0.25)
    app = PaneApp()
    async with app.run_test(size=(80, 40)) as pilot:
        wanted = ("ln V = 5.55", "unigrams = 4.50", "bigrams = 2.50", "floor = 0.25")
        await until(pilot, lambda: all(words in app.text for words in wanted))


@pytest.mark.parametrize("name", ["nano", HOSTILE])
async def test_a_shipped_models_loss_is_a_line_too(name: str) -> None:
    fake_run.make("tales", done=20, unigram_entropy=4.5, bigram_entropy=2.5, shipped_model=name, shipped_loss=1.25)
    app = PaneApp()
    async with app.run_test(size=(110, 40)) as pilot:
        wanted = "nano = 1.25" if name == "nano" else "a␛[31m[red]b"
        await until(pilot, lambda: wanted in app.text and "bigrams = 2.50" in app.text)
        assert not unsafe(drawn(app))  # type: ignore[arg-type]


async def test_mfu_and_memory_are_shown_once_they_are_known() -> None:
    run = fake_run.make("tales", state="running", done=20, flops_per_token=1e6, peak_flops=4e9)
    fake_run.add(run, 21, 21, memory_bytes=312.4e6, gpu_use=0.87)
    fake_run.add(run, 22, 25)
    app = PaneApp()
    with fake_run.alive(run):
        async with app.run_test(size=(78, 24)) as pilot:
            for wanted in ("MFU 25.0 %", "memory 312 MB", "GPU 87 %"):
                await until(pilot, lambda w=wanted: w in app.text.replace("\N{NO-BREAK SPACE}", " "))
            run.write_status("running", flops_per_token="[/]", peak_flops=None)
            await until(pilot, lambda: "MFU" not in app.text and "memory" in app.text)


async def test_e_resumes_with_the_batch_size_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(launch, "start", lambda run: started.append(run.name))
    run = fake_run.make("tales", state="failed", message="out of memory at batch 16: try …", fits=[4, 4])
    app = PaneApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "e resumes it at batch 4 × 4  out of memory" in app.text)
        await pilot.press("e")
        await until(pilot, lambda: started == ["tales"])
    assert (run.config().settings.batch_size, run.config().settings.grad_accumulation_steps) == (4, 4)


async def test_epoch_and_perplexity_are_shown_where_there_is_room() -> None:
    run = fake_run.make("tales", steps=100, done=20, train_tokens=10_000)
    settings = run.config().settings
    seen = 20 * settings.batch_size * settings.block_size / 10_000
    app = PaneApp()
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: app.pane.snapshot)
        assert app.pane.snapshot and app.pane.snapshot.epoch == pytest.approx(seen)
        assert app.pane.snapshot.perplexity == pytest.approx(math.exp(3.0))
        wanted = (f"epoch {seen:.2f}", "perplexity 20.1")
        await until(pilot, lambda: all(words in app.text.replace("\N{NO-BREAK SPACE}", " ") for words in wanted))


@pytest.mark.parametrize("value", [None, "x", [], 10**400, float("nan"), float("inf")])
async def test_non_finite_facts_are_left_out(value: object) -> None:
    run = fake_run.make("tales", done=10)
    keys = ("unigram_entropy", "bigram_entropy", "floor", "train_tokens")
    (run.path / "status.json").write_text(json.dumps({"state": "stopped", **dict.fromkeys(keys, value)}))
    snapshot = RunReader(run).read()
    facts = (snapshot.unigram_loss, snapshot.bigram_loss, snapshot.floor_loss, snapshot.epoch)
    assert facts == (None,) * 4


# ── a real worker ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_made_in_the_form_trains_and_is_found_again(tmp_path: Path) -> None:
    corpus = tmp_path / "tales.txt"
    corpus.write_text("Once upon a time there was a little ship that sailed the sea.\n" * 400)
    app = PaneApp()
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: "starts one" in app.text)
        await pilot.press("n")
        await until(pilot, lambda: app.screen.query("#corpus"))
        app.screen.query_one("#corpus").value = str(corpus)  # type: ignore[attr-defined]
        app.screen.query_one("#steps").value = "12"  # type: ignore[attr-defined]
        await until(pilot, lambda: "bytes of text" in app.text)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.state == "finished" and app.pane.snapshot and len(app.pane.snapshot.train) == 12)
        snapshot = app.pane.snapshot
        assert snapshot and [step for step, _ in snapshot.train] == list(range(1, 13))
        assert snapshot.train[-1][1] < snapshot.train[0][1]  # the loss decreases
        assert snapshot.sample is not None and snapshot.checkpoint == 12
    again = PaneApp()
    async with again.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: again.state == "finished")
        assert again.pane.snapshot and again.pane.snapshot.name == "tales-toy"
        assert isinstance(again.query_one("#run-head"), Static) and again.query_one(LossChart).curves.train


def test_what_is_evaluated_with_an_average_of_the_weights_says_so() -> None:
    run = fake_run.make("averaged", done=20)
    config = run.config()
    settings = from_fields({"ema_decay": 0.9, "arch": "relu2"}, config.settings)
    run.write_config(dataclasses.replace(config, settings=settings))
    snapshot = RunReader(run).read()
    assert "validation (EMA) 3.000" in pane_lines.numbers_line(snapshot, 120, 2).plain
    assert pane_lines.curves(snapshot).names == ("training", "validation (EMA)")
    assert "preset toy · relu2 · cpu" in pane_lines.facts_line(snapshot).plain
