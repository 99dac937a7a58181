"""The curves of runs: what is read, where it lies on each axis, the line of a step, and their export."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.run_helpers import make, words
from tui_llm.cli import main
from tui_llm.common import svg_to_png
from tui_llm.common.errors import UserError
from tui_llm.facts.chart import ChartData, ChartLine
from tui_llm.facts.chart_files import csv_text, svg_text
from tui_llm.training.plan import branch
from tui_llm.training.run import compare, curve_charts, jsonl, matrix_statistics, run_curves, snapshot
from tui_llm.training.run import metric_at as metric_at_module
from tui_llm.training.run.matrix_statistics import MatrixStatistics
from tui_llm.training.run.metric_at import metric_at, of_steps
from tui_llm.training.run.metrics import Metric, metric_line, parse_metric
from tui_llm.training.run.run import Run
from tui_llm.training.run.run_curves import ClockReader, MatrixTable, RunCurves, RunCurvesReader
from tui_llm.training.run.settings import from_fields

SVG = "{http://www.w3.org/2000/svg}"


def write(run: Run, first: int, last: int, *, begin: float = 1e9, slow: float = 0.5) -> None:
    with run.metrics_path.open("ab") as file:
        for step in range(first, last + 1):
            metric = Metric(step, 5 / step, 1e-3, 0.25, 1000.0, 2.0 if step % 10 == 0 else None, begin + slow * (step - first))  # fmt: skip
            file.write(json.dumps(metric_line(metric)).encode() + b"\n")


def rows(run: Run, steps: range, layers: int = 2) -> None:
    for step in steps:
        by = {"q": tuple(0.1 * (layer + 1) for layer in range(layers)), "embedding": (0.5,)}
        jsonl.append_to(run.matrices_path, matrix_statistics.line(MatrixStatistics(step, by, by, (1.0,) * layers)))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    text = tmp_path / "text.txt"
    text.write_text(words(400))
    found = make("first", text, steps=100)
    write(found, 1, 40)
    rows(found, range(0, 41, 20))
    found.write_status("stopped", flops_per_token=100)
    return found


def read(run: Run) -> RunCurves:
    reader = RunCurvesReader(run)
    found = reader.read()
    while found.reading:
        found = reader.read()
    return found


def test_each_axis(run: Run) -> None:
    found = read(run)
    assert found.lines["loss"][0].points[:2] == ((1, 5.0), (2, 2.5)) and found.steps == (1, 40)
    assert [line.layer for line in found.lines["update.q"]] == [0, 1]
    assert found.lines["gradient"][1].points[0] == (0, pytest.approx(0.2))  # blocks only: without the embedding
    assert found.lines["gradient.embedding"][0].layer is None
    s = run.config().settings
    tokens = s.batch_size * s.block_size
    for axis, wanted in (("step", 21.0), ("tokens", 21.0 * tokens), ("flops", 2100.0 * tokens), ("time", 10.0)):
        assert curve_charts.missing(found, axis) == ""
        assert curve_charts.x_of(found, axis, 21) == pytest.approx(wanted)
        assert curve_charts.step_of(found, axis, wanted) == pytest.approx(21)
    info = {one.key: one for one in found.infos}
    data = curve_charts.chart([found], info["update.q"], "tokens")
    assert [line.name for line in data.lines] == ["layer 0", "layer 1"]
    assert [x for x, _ in data.lines[0].points] == [0, 20 * tokens, 40 * tokens]
    both = curve_charts.chart([found, found], info["gradient.q"], "step")
    assert both.lines[0].points[0][1] == pytest.approx(math.hypot(0.1, 0.2)) and len(both.lines) == 2
    assert "all layers together" in both.title


def test_the_loss_is_named_by_what_the_run_learns(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    formulas = {
        "preference": ({"sft_weight": 0.5, "length_normalized": "on"}, "−ln σ(margin) + 0.5 · (−ln π(chosen) ÷ its tokens); mean of the pairs"),
        "reward": ({"reward": "full-stop"}, "KL weight · KL of the answer (the sum over its tokens) − its reward; mean of the answers"),
        "pretraining": ({}, "nats per token"),
    }  # fmt: skip
    text, config, shown = read(run), run.config(), []
    for objective, (fields, formula) in formulas.items():
        fields |= {} if objective == "pretraining" else {"from_model": "nano"}
        changed = from_fields({"objective": objective, **fields}, config.settings)
        run.write_config(dataclasses.replace(config, settings=changed))
        assert main(["runs", "curves", run.name, "--json"]) == 0
        made = {row["chart"]: row["meaning"] for row in json.loads(capsys.readouterr().out)["charts"]}
        assert made["loss"] == f"of the batch, before the update; {formula}"
        assert made["val_loss"] == f"of the held-out rows, after the update; {formula}"
        found = read(run)
        (info,) = (one for one in found.infos if one.key == "loss")
        assert formula in svg_text(curve_charts.chart([found], info, "step")).replace("&#x27;", "'")
        shown.append(curve_charts.meaning([found, text], info))
    assert shown == ["as each run measures it"] * 2 + ["of the batch, before the update; nats per token"]


def test_pauses_are_no_time_of_training(run: Run) -> None:
    write(run, 41, 60, begin=1e9 + 1e6)  # a resumed worker
    clock = read(run).clock
    assert clock.at(60) == pytest.approx(59 * 0.5)
    assert clock.step(10.0) == pytest.approx(21)


def test_clocks_take_little_memory_and_no_nonsense() -> None:
    reader = ClockReader()
    for step in range(1, 20_000):
        reader.add(Metric(step, 1.0, 1.0, 1.0, 1.0, time=1e9 + step))
    clock = reader.clock()
    assert len(clock.steps) < 5000 and clock.at(10_000.5) == pytest.approx(9999.5)
    for when in (math.nan, -5.0, 0.0, 1e9):  # damaged, or a clock that was put back
        reader.add(Metric(20_000, 1.0, 1.0, 1.0, 1.0, time=when))
    assert reader.clock().at(19_999) == pytest.approx(19_998, rel=1e-3)


def test_what_an_old_run_lacks(run: Run) -> None:
    run.matrices_path.unlink()
    found = read(run)
    assert "update.q" not in found.lines and "loss" in found.lines
    assert RunCurvesReader(run).at(5) == {}  # before it was read


def test_values_at_a_step_are_those_of_the_files(run: Run) -> None:
    reader = RunCurvesReader(run)
    reader.read()
    found = reader.at(25)
    assert (found["loss"].step, found["loss"].values, found["loss"].time) == (25, (0.2,), 1e9 + 12)
    assert (found["val_loss"].step, found["val_loss"].values) == (20, (2.0,))
    assert (found["update.q"].step, found["update.q"].values) == (20, pytest.approx((0.1, 0.2)))
    assert reader.at(1000)["loss"].step == 40 and "loss" not in reader.at(0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), unique=True, min_size=1, max_size=80), st.integers(0, 420), st.booleans())
def test_the_line_of_a_step(tmp_path_factory: pytest.TempPathFactory, steps: list[int], step: int, damaged: bool) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    with path.open("wb") as file:
        for one in sorted(steps):
            file.write(json.dumps(metric_line(Metric(one, float(one), 1.0, 1.0, 1.0))).encode() + b"\n")
            if damaged:
                file.write(b'{"step": \xff\n\x00\n')
    found = metric_at(path, step)
    before = [one for one in steps if one <= step]
    assert (found.step if found else None) == (max(before) if before else None)


def test_the_lines_of_some_steps_are_read_without_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "metrics.jsonl", list[bytes]()
    with path.open("wb") as file:
        for step in range(1, 20_001):
            file.write(json.dumps(metric_line(Metric(step, float(step), 1.0, 1.0, 1.0))).encode() + b"\n")
            if step % 1000 == 0:
                file.write(b'{"step": \xff\n\x00\n' + b"x" * 70_000 + b"\n")
    monkeypatch.setattr(metric_at_module, "parse_metric", lambda line: (read.append(line), parse_metric(line))[1])
    for first, last in ((1, 3), (990, 1010), (9_950, 10_000), (19_999, 30_000), (0, 0), (20_001, 20_002)):
        assert list(of_steps(path, first, last)) == [*range(max(1, first), min(last, 20_000) + 1)]
    assert len(read) < 8_000  # of 6 × 20,000
    assert of_steps(tmp_path / "none", 1, 2) == {}


def test_tokens_and_operations_of_a_branch_with_another_batch_begin_with_its_parents(run: Run) -> None:
    elder = run.config()
    each = elder.step_tokens
    assert each is not None
    made = branch.create(run, 20, "wide", {"batch_size": "8"})
    write(made, 21, 40)
    made.write_status("stopped", flops_per_token=100)
    mine, found = made.config().step_tokens, read(made)
    assert mine is not None and mine != each
    wanted = 20 * each + 5 * mine
    for axis, x in (("tokens", wanted), ("flops", 100 * wanted)):
        assert curve_charts.x_of(found, axis, 25) == x
        assert curve_charts.step_of(found, axis, x) == pytest.approx(25)
        assert curve_charts.placed(found, axis, [(25, 1.0)]) == [(x, 1.0)]
    outcome = compare.compare([made]).outcomes[0]
    assert outcome.tokens == 20 * each + 20 * mine
    again = branch.create(made, 30, "twice", {"batch_size": str(elder.settings.batch_size)}).config()
    assert again.tokens_at(40) == 20 * each + 10 * mine + 10 * each
    assert snapshot.epoch(again, 40, 1000.0) == (30 * each + 10 * mine) / 1000


def test_a_number_of_operations_that_is_none_leaves_the_run_out(run: Run) -> None:
    run.write_status("stopped", flops_per_token=0)
    found = read(run)
    assert curve_charts.missing(found, "flops") and math.isnan(curve_charts.step_of(found, "flops", 5.0))


def test_many_lines_of_matrices_are_thinned() -> None:
    table = MatrixTable()
    for step in range(10_000):
        table.add(MatrixStatistics(step, {}, {"q": (float(step == 5000) + 1, 2.0)}))
    assert len(table.steps) <= 4096
    (first, second) = table.lines()["update.q"]
    assert len(first.points) <= 512 and max(value for _, value in first.points) in (1.0, 2.0)
    assert {value for _, value in second.points} == {2.0}
    table.add(MatrixStatistics(1, {}, {"q": (9.0,)}))  # out of order: ignored
    assert table.steps[-1] > 5000


def test_the_first_answer_reads_a_few_places_of_a_long_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a run of a million steps opens as fast as one of some thousand."""
    monkeypatch.setattr(snapshot, "LONG", 1 << 20)
    monkeypatch.setattr(snapshot, "PLACES", 16)
    monkeypatch.setattr(run_curves, "CHUNK", 1 << 16)
    run.metrics_path.write_bytes(b"")
    write(run, 1, 12_000)
    reader = RunCurvesReader(run)
    found = reader.read()
    assert found.reading and found.steps[1] > 11_900 and 100 < len(found.lines["loss"][0].points) < 2000
    assert reader.at(9_876)["loss"].step == 9_876  # exact before the file is read
    while (found := reader.read()).reading:
        pass
    assert found.steps == (1, 12_000) and len(found.lines["loss"][0].points) > 2000


# ── export ───────────────────────────────────────────────────────────────────────────────────────────────────────────

DATA = ChartData("loss <&> \x1b", "step", (ChartLine("a", ((1, 2.0), (2, -1.0), (3, math.nan), (4, 0.5))),
                 ChartLine("b", ((2, 1e-9),)), ChartLine("c", ((1, 0.1), (4, 0.2)), marks=True)), levels=(("ln V", 1.5),))  # fmt: skip


@pytest.mark.parametrize(("log_x", "log_y"), [(False, False), (True, True)])
def test_an_svg_is_well_formed_and_has_every_point(log_x: bool, log_y: bool) -> None:
    import dataclasses

    root = ET.fromstring(svg_text(dataclasses.replace(DATA, log_x=log_x, log_y=log_y)))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "loss <&> ␛" in texts and {"a", "b", "c"} <= set(texts) and "ln V = 1.5" in texts
    paths = [path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("stroke-width")]
    joined = " ".join(paths)
    assert "nan" not in joined and "inf" not in joined
    dots = len(list(root.iter(f"{SVG}circle")))
    # linear: line a breaks at NaN (two points, one alone), b is one point, c two marks
    assert dots == (5 if log_y else 4)
    for values in (((1, 1.0),), (), ((1, math.inf),)):
        assert ET.fromstring(svg_text(ChartData("t", "step", (ChartLine("", values),)))) is not None


def test_a_csv_has_a_row_for_every_x() -> None:
    found = list(csv.reader(io.StringIO(csv_text(DATA))))
    assert found[0] == ["step", "a", "b", "c"]
    assert found[1:] == [["1", "2", "", "0.1"], ["2", "-1", "1e-09", ""], ["3", "nan", "", ""], ["4", "0.5", "", "0.2"]]  # fmt: skip


def test_a_png_names_its_converter_or_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(svg_to_png, "find_spec", lambda _: None)
    monkeypatch.setattr(svg_to_png.shutil, "which", lambda _: None)
    line = ["runs", "curves", "first", "--chart", "loss", "--out", str(tmp_path / "loss.png")]
    assert main(line) != 0
    error = capsys.readouterr().err
    assert "install rsvg-convert" in error and error.count("\n") == 1 and not (tmp_path / "loss.png").exists()
    fake = tmp_path / "rsvg-convert"
    fake.write_text('#!/bin/sh\nfor last; do :; done\ngrep -q "<svg" "$last" && printf "\\211PNG" > "$4"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(svg_to_png.shutil, "which", lambda name: str(fake) if name == "rsvg-convert" else None)
    assert main(line) == 0 and "(rsvg-convert)" in capsys.readouterr().out
    assert (tmp_path / "loss.png").read_bytes() == b"\x89PNG"
    fake.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    assert main([*line, "--force"]) != 0
    assert "rsvg-convert could not convert the picture: broken" in capsys.readouterr().err
    assert (tmp_path / "loss.png").read_bytes() == b"\x89PNG"  # the old one stays


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "curves", "first", "--json"]) == 0
    charts = {row["chart"]: row for row in json.loads(capsys.readouterr().out)["charts"]}
    assert charts["update.q"]["values"] == pytest.approx([0.1, 0.2]) and charts["update.q"]["step"] == 40
    assert charts["update.k"]["values"] == [] and charts["update.k"]["step"] is None
    assert main(["runs", "curves", "first"]) == 0 and "update ÷ weight, k" in capsys.readouterr().out
    assert main(["runs", "curves", "first", "--chart", "loss", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert line["points"][24] == [25, 0.2] and len(line["points"]) == 40
    path = tmp_path / "loss.csv"
    assert main(["runs", "curves", "first", "--chart", "loss", "--by", "tokens", "--out", str(path)]) == 0
    s = run.config().settings
    assert path.read_text().splitlines()[1] == f"{s.batch_size * s.block_size},5"
    capsys.readouterr()
    for words_, said in (
        (["--chart", "loss", "--out", str(path)], "already exists"),
        (["--chart", "los"], "did you mean loss?"),
        (["--out", str(path)], "name it with --chart"),
        (["--chart", "loss", "--out", "a.pdf"], ".svg, .png or .csv"),
        (["--chart", "update.k"], "no update ÷ weight, k was recorded"),
    ):
        assert main(["runs", "curves", "first", *words_]) != 0
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, words_
    with pytest.raises(UserError, match=r"\.svg, \.png or \.csv"):
        curve_charts.check_export(tmp_path / "x.gif")
