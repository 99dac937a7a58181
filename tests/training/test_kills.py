"""kill -9 from outside at arbitrary times: the run ends as if it had not been killed, and repeats nothing that was saved."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from tests.training.kept_work import Kept, lost_checkpoints
from tests.training.run_helpers import begin, contents, leftovers, lines, losses, make, wait, words, work

KILLS, STEPS, FURTHEST = 20, 320, 15


def test_twenty_kills_at_random_moments_end_bit_for_bit_as_an_uninterrupted_run(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    # With dropout and gradient accumulation, whose state must be restored; frequent checkpoints, to be hit by kills.
    fields = {"steps": STEPS, "checkpoint_every": 7, "eval_every": 20, "dropout": 0.1, "grad_accumulation_steps": 2}
    unbroken, broken = make("unbroken", text, **fields), make("broken", text, **fields)
    assert work(unbroken) == 0, unbroken.log_path.read_text()

    draw = random.Random(2024)
    reached, saved = [], set()
    kept = Kept.of(broken)
    for kill in range(KILLS):
        far = broken.status().step + FURTHEST
        worker = begin(broken, ("held at a step", far))  # since on a busy machine this process may be late
        if kill % 4 == 0:  # during start-up: before its lock, while it loads the checkpoint, in its first steps
            late = time.monotonic() + draw.uniform(0, 0.4)
            wait(lambda late=late, far=far: time.monotonic() >= late or broken.status().step >= far)  # type: ignore[misc]
        else:  # during training, some steps further each time
            goal = far - draw.randint(1, FURTHEST - 1)
            wait(lambda goal=goal: broken.status().step >= goal)  # type: ignore[misc]
            time.sleep(draw.uniform(0, 0.02))
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL, broken.log_path.read_text()
        assert not broken.alive() and broken.status().state in ("died", "new", "starting")
        reached.append(broken.status().step)
        assert [*kept.repeated(broken), *lost_checkpoints(broken)] == []
        kept = Kept.of(broken)
        saved.add(kept.step)
    assert len(saved) > KILLS // 5  # the workers had something to continue from
    assert len(set(reached)) > KILLS // 2 and max(reached) < STEPS  # the kills hit different steps, all before the end
    assert work(broken) == 0, broken.log_path.read_text()

    assert list(kept.repeated(broken)) == []
    assert broken.status().state == "finished" and "damaged" not in broken.log_path.read_text()
    assert losses(broken) == losses(unbroken)
    assert [row[0] for row in losses(broken)] == list(range(1, STEPS + 1))
    assert lines(broken.samples_path) == lines(unbroken.samples_path)
    ended = [(step, contents(folder)) for step, folder in broken.checkpoints()]
    assert ended == [(step, contents(folder)) for step, folder in unbroken.checkpoints()]  # weights and optimizer state
    assert leftovers(broken.path) == []
