"""A sample of mutated files read by the real commands: each gives a correct answer or one line of error.

`scripts/mutate_files.py` runs thousands, and holds them to 10 s of CPU. Beside other programs the same work takes several
times as much, so that here only a case that goes on and on is a fault.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations import forked, models, runs, worker
from tests.mutations.case import Case, fault
from tests.mutations.forked import Ending

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc")
def test_a_sample_of_mutated_files() -> None:
    words = [sys.executable, str(ROOT / "scripts" / "mutate_files.py"), "--seed", "13", "--cases", "100"]
    words += ["--cpu", "60"]
    made = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr[-3000:] + made.stdout[-3000:]
    assert json.loads(made.stdout.splitlines()[-1])["cases"] == 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc")
def test_a_runs_files_follow_from_the_seed_and_the_worker_resumes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path / "home"))
    models.make_bases(tmp_path)
    made = []
    for _ in range(2):
        shutil.rmtree(tmp_path / "home", ignore_errors=True)
        runs.make_bases(tmp_path)
        files = sorted(path for path in (tmp_path / "home" / "runs").rglob("*") if path.is_file())
        made.append({path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})
    assert {path for path in made[0] if made[0][path] != made[1].get(path)} == set()
    run, intact = (tmp_path / "home" / "runs" / name for name in (runs.NAME, runs.SECOND))
    ending = forked.run(worker.resumed(run, 5))
    assert ending.code == 0, ending
    answer = json.loads(ending.out)
    assert list(answer["losses"]) == ["6", "7", "8", "9", "10"]
    check = worker.as_before(intact)
    assert check(answer) == ""
    assert check({**answer, "losses": {**answer["losses"], "7": 1.0}}) and check({**answer, "weights": "another"})
    shutil.rmtree(run / "checkpoint-10")
    os.mkfifo(run / "checkpoint-10")  # written again; opening it would never return
    ending = forked.run(worker.resumed(run, 10))
    assert ending.code == 0 and not ending.hung and check(json.loads(ending.out)) == ""
    weights = run / "checkpoint-5" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    ending = forked.run(worker.resumed(run, 5))
    assert ending.code == 2 and "checkpoint-5 is damaged" in ending.err
    assert fault(Case("resumed"), ending, None) == ""


def test_what_a_case_requires() -> None:
    def ends(answer: object) -> Ending:
        return Ending(0, json.dumps(answer), "", 0.1, 0)

    refused = Ending(2, "", "tui-llm: the sandbox says no\n", 0.1, 0)
    assert fault(Case("", kept=lambda answer: answer["b"]), ends({"a": 1, "b": 2}), ends({"a": 0, "b": 2})) == ""
    assert "another answer" in fault(Case("", kept=lambda answer: answer["b"]), ends({"b": 1}), ends({"b": 2}))
    assert "another answer" in fault(Case("", same=True), ends([1]), ends([2]))
    assert "must be as before" in fault(Case("", same=True), refused, None)
    assert fault(Case("", refusal="sandbox"), refused, None) == ""
    assert "another reason" in fault(Case("", refusal="steps"), refused, None)
    assert "must be refused" in fault(Case("", refusal="sandbox"), ends([1]), None)
