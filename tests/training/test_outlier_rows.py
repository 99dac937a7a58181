"""The losses of a step's rows, against torch's cross_entropy; the alarm on rows far above the others, and the files that it names."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.training.run_helpers import lines, make, words, work
from tests.training.test_distributed import nothing_stays, train
from tests.training.test_gpu_step import as_on_a_gpu
from tests.training.test_loop import float32, trainer
from tui_llm import cli, run_health
from tui_llm.facts.token_place import TokenPlace
from tui_llm.llm.model.fast_step import FastStep
from tui_llm.training.plan import launch
from tui_llm.training.run import health
from tui_llm.training.run.alarm_kinds import OUTLIER_ROW
from tui_llm.training.run.alarms import AlarmReader
from tui_llm.training.run.metrics import Metric, MetricsTail, metric_line, parse_metric
from tui_llm.training.run.outlier_rows import MOST_FILES, RowFiles
from tui_llm.training.run.row_losses import summary
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import from_fields
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.replay import StepReplay

__all__ = ["float32", "nothing_stays"]  # fixtures


# ── the losses ──


def reference(ours: Trainer, step: int) -> list[float]:
    """The mean loss of each row of step `step` with the present weights, by torch in float64."""
    accumulation = ours.settings.grad_accumulation_steps
    both = [ours.batches.batch((step - 1) * accumulation + part) for part in range(accumulation)]
    x, y = (torch.cat(side) for side in zip(*both, strict=True))
    model = ours.model.eval()
    with torch.no_grad():
        logits = model(x).double()
    return F.cross_entropy(logits.transpose(1, 2), y, reduction="none").mean(1).tolist()


@pytest.mark.parametrize("kind", ["as chosen", "without C", "autograd", "late"])
def test_the_rows_losses_are_torchs(tmp_path: Path, kind: str) -> None:
    """On each kind of step; and their mean is the loss."""
    ours = trainer(tmp_path, grad_accumulation_steps=2, layers=2, steps=3)
    if kind == "without C":
        assert ours.flat is not None and ours.products is not None
        ours.fast_step = FastStep(ours.model, ours.flat, ours.products)
    elif kind != "as chosen":
        as_on_a_gpu(ours).reads_late = kind == "late"
    wanted = reference(ours, 1)
    for step, metric in enumerate(ours.steps(), 1):
        assert ours.row_losses == pytest.approx(wanted, rel=1e-5) and len(wanted) == 8
        assert metric.loss == pytest.approx(sum(wanted) / 8, rel=1e-5)
        assert metric.row == max(range(8), key=wanted.__getitem__)
        assert metric.row_loss == pytest.approx(max(wanted), rel=1e-4)
        wanted = reference(ours, step + 1)


def test_the_summary_is_that_of_the_rows() -> None:
    rows = [2.0, 3.0, 9.123456, 2.5, 2.25]
    assert summary(rows) == {"row_loss": 9.1235, "row": 2, "row_median": 2.5, "row_spread": pytest.approx(1.4826 * 0.5)}
    assert summary([1.0]) == summary([]) == summary([1.0, float("nan")]) == {}


def test_metrics_of_earlier_versions_have_no_rows() -> None:
    metric = Metric(3, 2.0, 1e-3, 1.0, 10.0, row_loss=4.5, row=0, row_median=2.0, row_spread=0.1)
    line = json.dumps(metric_line(metric)).encode()
    assert parse_metric(line) == metric and line.count(b"row") == 4
    old = dataclasses.replace(metric, row_loss=None, row=None, row_median=None, row_spread=None)
    assert parse_metric(json.dumps(metric_line(old)).encode()) == old
    assert b"row" not in json.dumps(metric_line(old)).encode()
    assert parse_metric(line.replace(b'"row": 0', b'"row": "x"')) is None


# ── the detector ──

SETTINGS = from_fields({"steps": 1000, "warmup_steps": 20})


def level(step: int) -> float:
    """The mean loss of a healthy run."""
    return float(1.8 + 3.7 * (1 + step / 20) ** -0.6)


def metrics(outliers: dict[int, float], seed: int = 1, rows: int = 16, steps: int = 400) -> list[Metric]:
    """Rows that are normal with a spread of a tenth of the loss; at some steps, one row has another loss."""
    draw, made = random.Random(seed), []
    for step in range(1, steps + 1):
        losses = [draw.gauss(level(step), 0.1 * level(step)) for _ in range(rows)]
        if step in outliers:
            losses[step % rows] = outliers[step]
        made.append(Metric(step, sum(losses) / rows, 1e-3, 1.0, 1.0, **summary(losses)))  # type: ignore[arg-type]
    return made


class Nowhere:
    """The files are unknown."""

    def files(self, step: int, row: int) -> list[str]:
        return []

    def place(self, step: int, row: int) -> TokenPlace | None:
        raise AssertionError("the files are unknown")


class Files:
    """Rows of every third step are of the first file; the others of as many files as there are steps."""

    def __init__(self) -> None:
        self.placed = 0

    def files(self, step: int, row: int) -> list[str]:
        return ["/x/a.txt"] if step % 3 == 0 else [f"/x/{step}.txt"]

    def place(self, step: int, row: int) -> TokenPlace | None:
        self.placed += 1
        return TokenPlace(self.files(step, row)[0], 100 * step)


def read(outliers: dict[int, float], files: RowFiles | None = None, seed: int = 1, rows: int = 16) -> AlarmReader:
    reader = AlarmReader(SETTINGS, files=files or Nowhere())
    reader.add(metrics(outliers, seed, rows))
    return reader


@pytest.mark.parametrize("rows", [2, 3, 8, 16, 64])
def test_ordinary_rows_raise_no_alarm(rows: int) -> None:
    for seed in range(3):
        assert read({}, seed=seed, rows=rows).alarms == ()


def test_one_row_far_above_the_others_has_its_numbers() -> None:
    # Rows of the warm-up, and before it is known what is usual, don't count.
    (found,) = read({10: 9.0, 60: 9.0, 300: 7.0}).alarms
    assert (found.kind, found.step, found.since, found.row) == (OUTLIER_ROW, 300, 300, 300 % 16)
    assert found.place is None and found.count == 1
    assert found.evidence.startswith(f"row {300 % 16 + 1}: loss 7.000; the median row has 2.")
    assert ", the largest row of a step usually 2." in found.evidence and "--exclude" in found.advice


def test_a_batch_whose_mean_hides_the_row() -> None:
    """No spike: the mean moves by a quarter of a nat."""
    assert [one.kind for one in read({300: 6.5}).alarms] == [OUTLIER_ROW]


@pytest.mark.parametrize(
    ("steps", "often"), [(range(300, 351, 10), True), (range(300, 341, 10), False), (range(100, 400, 13), False)]
)
def test_rows_that_are_not_so_far_above_count_if_there_are_six_in_64_steps(steps: range, often: bool) -> None:
    found = read({step: 1.8 * level(step) for step in steps}).alarms
    assert [(one.since, one.step, one.count) for one in found] == ([(300, 350, 6)] if often else [])


def test_rare_rows_of_several_files_are_not_added_up() -> None:
    outliers = {step: 1.8 * level(step) for step in range(301, 360) if step % 3}
    assert read(outliers, Files()).alarms == () and len(read(outliers).alarms) == 1


def test_rows_in_most_steps_are_one_alarm_with_a_count() -> None:
    """As noise in a sixteenth of the corpus: the largest row is usually one."""
    reader = read(dict.fromkeys(range(90, 400), 9.0))
    (found,) = reader.alarms
    assert found.count == 310 and found.evidence.endswith(". 310 steps from 90 to 399 have such a row")
    assert reader.updates() == [found] and reader.updates() == []


def test_an_alarm_for_each_file_and_one_for_all_others() -> None:
    files = Files()
    found = read(dict.fromkeys(range(300, 340), 7.0), files).alarms
    assert len(found) == MOST_FILES + 1 and files.placed == MOST_FILES
    assert found[0].place == TokenPlace("/x/a.txt", 30_000) and found[0].count == 14
    assert ", a.txt, byte 30,000: loss 7.000" in found[0].evidence
    assert found[0].evidence.endswith(". 14 steps from 300 to 339 have such a row of this file")
    assert found[-1].place is None and sum(one.count for one in found) == 40


def test_line_by_line_gives_the_same_alarms() -> None:
    made = metrics(dict.fromkeys(range(300, 340), 7.0))
    whole, live = AlarmReader(SETTINGS, files=Files()), AlarmReader(SETTINGS, files=Files())
    assert whole.add(made) == [alarm for metric in made for alarm in live.add([metric])]
    assert whole.alarms == live.alarms


# ── runs ──


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    return tmp_path


def files(folder: Path, noise: int) -> list[str]:
    """Three texts; with `noise`, the middle one has so many random bytes."""
    draw, made = random.Random(3), []
    for number, name in enumerate(("a tale", "n[red]oise", "the end")):
        path = folder / f"{name}.txt"
        path.write_text(words(6_000, seed=number))
        if noise and number == 1:
            path.write_text("".join(chr(draw.randrange(33, 127)) for _ in range(noise)))
        made.append(str(path))
    return made


FIELDS = {
    "steps": 200,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "eval_every": 50,
    "checkpoint_every": 50,
    "sample_tokens": 0,
    "precision": "fp32",
}


def start(tmp_path: Path, noise: int, **fields: object) -> Run:
    settings = from_fields({**FIELDS, **fields}, make("other", Path(files(tmp_path, 0)[0])).config().settings)
    return launch.create("run", files(tmp_path, noise), settings, preset="toy", device="cpu")


def test_a_file_of_noise_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, with a count, also by a worker that goes on after the first was killed."""
    run = start(tmp_path, 2_000)
    assert work(run, die=("half a line", 180)) == -9
    assert work(run) == 0
    (alarm,) = [one for one in run_health("run").alarms if one.kind == OUTLIER_ROW]
    assert (
        alarm.place is not None and Path(alarm.place.file).name == "n[red]oise.txt" and alarm.place.offset is not None
    )
    logged = lines(run.metrics_path)
    reader = AlarmReader(run.config().settings, files=Nowhere())
    reader.add(MetricsTail(run.metrics_path).new())
    (computed,) = [one for one in reader.alarms if one.kind == OUTLIER_ROW]
    assert (alarm.step, alarm.row, alarm.count) == (computed.step, computed.row, computed.count) and alarm.count > 3
    assert alarm.evidence.endswith(computed.evidence[-40:] + " of this file")
    written = [line for line in lines(health.alarms_path(run)) if line["kind"] == OUTLIER_ROW]
    assert len(written) <= 1 + 2 * 200 // 50 and written[-1]["count"] == alarm.count
    assert cli.main(["runs", "--json"]) == 0
    (row,) = (row for row in json.loads(capsys.readouterr().out)["runs"] if row["name"] == "run")
    (shown,) = (one for one in row["alarms"] if one["kind"] == OUTLIER_ROW)
    assert shown["place"] == {"file": alarm.place.file, "offset": alarm.place.offset, "record": None}
    assert shown["row"] == alarm.row and shown["advice"]
    # The replay has that row, with that loss, at that place.
    step = StepReplay(run, alarm.step, lambda _: None).measure()
    there, mine = step["rows"][alarm.row], logged[alarm.step - 1]
    assert step["loss"] == pytest.approx(mine["loss"], rel=1e-4) and alarm.row == mine["row"]
    assert sum(there["losses"]) / len(there["losses"]) == pytest.approx(mine["row_loss"], rel=1e-4)
    assert [alarm.place.file, alarm.place.offset, None] in [place for _, place in there["parts"]]


def test_the_same_files_without_noise_raise_no_alarm(tmp_path: Path) -> None:
    run = start(tmp_path, 0, batch_size=16)
    assert work(run) == 0
    assert run_health("run").alarms == () and health.alarms_path(run).read_bytes() == b""


def test_several_processes_have_the_rows_of_one(tmp_path: Path) -> None:
    found = []
    for number, (world, accumulation) in enumerate(((1, 1), (2, 1), (2, 2))):
        text = files(tmp_path, 0)[0]
        run = make(
            f"run{number}", Path(text), steps=4, batch_size=8 // accumulation, grad_accumulation_steps=accumulation
        )
        train(run, world)
        found.append([(line["row"], line["row_loss"], line["row_median"]) for line in lines(run.metrics_path)])
    for other in found[1:]:
        assert [row for row, *_ in other] == [row for row, *_ in found[0]]
        for theirs, ours in zip(other, found[0], strict=True):
            assert theirs[1:] == pytest.approx(ours[1:], rel=1e-3)
