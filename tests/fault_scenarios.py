"""The scenarios of `faults.py`: every kind of command that writes something that must not be lost."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

# Imported here, so that forked processes have them: importing takes longest.
from tests.fault_hub import pull_version
from tests.faults import Scenario
from tests.training.run_helpers import IMPORTED, make, words
from tui_llm import cli
from tui_llm.common import paths
from tui_llm.facts.pin import Pin
from tui_llm.llm.data import preference_pairs
from tui_llm.llm.data.corpora import place
from tui_llm.llm.data.preference_pairs import PreferencePair
from tui_llm.training.plan import launch
from tui_llm.training.run import pins
from tui_llm.training.run.run import Run, find
from tui_llm.training.worker import measurements

for name in IMPORTED:
    import_module(name)

TINY: dict[str, Any] = {
    "steps": 6, "checkpoint_every": 2, "eval_every": 3, "eval_batches": 1, "block_size": 8, "batch_size": 2, "width": 8,
    "sample_tokens": 2, "dropout": 0.1, "sample_prompt": "the",
}  # fmt: skip
PINS = [Pin("the cat", " sat"), Pin("a")]


def _text(home: Path, count: int = 800) -> Path:
    path = home / "text.txt"
    path.write_text(words(count))
    return path


def _command(*words: str) -> int:
    """Runs a command in this process."""
    return cli.main(list(words))


def _worker(home: Path) -> int:
    """Runs the worker of the run `run`, with its output in the run's log, as with `launch.start`."""
    from tui_llm.training.worker import process

    measurements.PEAK_AFTER = float("inf")
    run = Run(home / "runs" / "run")
    if not run.path.is_dir():
        return 3
    log = os.open(run.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.flush()
    process.PATIENCE = 0.0
    return process.main([str(run.path)])


def _begun(home: Path, **fields: Any) -> Run:
    run = make("run", _text(home), **{**TINY, **fields})
    pins.write(run.pins_path, PINS)
    return run


def _tokenised(home: Path) -> None:
    """Creates a run whose corpus is in the cache."""
    from tui_llm.llm.data import corpus
    from tui_llm.llm.tokens.tokenizer import byte_level

    _begun(home)
    corpus.load([place(str(home / "text.txt"))], byte_level(), 0.05, block_size=8)


def _broken_off(home: Path) -> None:
    """Creates a run that was killed while it wrote, after its second checkpoint."""
    from tui_llm.training.run import jsonl

    _tokenised(home)
    append, written = jsonl.append, 0

    class Enough(BaseException):
        pass

    def some(file: Any, value: Any) -> None:
        nonlocal written
        written += 1
        if written == 9:
            file.write(b'{"step": 5, "lo')
            raise Enough
        append(file, value)

    jsonl.append = some
    try:
        _worker(home)
    except Enough:
        return
    raise AssertionError("it was not broken off")


def _trained(home: Path) -> int:
    _tokenised(home)
    return _worker(home)


def _export(home: Path) -> int:
    return _command("export", "run", str(home / "exported"))


def _export_again(home: Path) -> int:
    """Exports next to an existing export."""
    return _command("export", "run", str(home / "second"), "--dtype", "bfloat16")


def _learned(home: Path) -> None:
    _text(home, 4000)


def _learn(home: Path) -> int:
    return _command("vocabulary", "train", str(home / "text.txt"), "--size", "270", "--out", str(home / "learned"))


def _vocabulary(home: Path) -> int:
    _learned(home)
    return _learn(home)


def _add(home: Path) -> int:
    return _command("vocabulary", "add", str(home / "learned"), "--name", "mine")


def _create(home: Path) -> int:
    return _command(
        "train", str(home / "text.txt"), "--run", "new", "--no-start", "--tokenizer", "byte", "--pin", "the cat"
    )


def _create_from(home: Path) -> int:
    """Creates a run that starts from a model, of which the run gets a copy."""
    return _command("train", str(home / "text.txt"), "--run", "new", "--no-start", "--from", "run:run")


def _steer(home: Path) -> int:
    """Writes pins of the run and of the user, and control.json."""
    run = find("run")
    pins.change(run.pins_path, [Pin("new")], PINS[:1])
    pins.change(paths.pins_path(), [Pin("new")])
    launch.pause(run)
    return 0


def _steered(home: Path) -> None:
    _begun(home)
    pins.write(paths.pins_path(), PINS)


def _guarded(act: Any) -> Any:
    """Wraps a function that no command calls, with the command line's handling of errors."""

    def acted(home: Path) -> int:
        from tui_llm.common.errors import UserError

        try:
            return act(home) or 0
        except UserError as error:
            print(f"tui-llm: {error}", file=sys.stderr)
            return 2

    return acted


def _extend(home: Path) -> int:
    run = find("run")
    if run.config().settings.steps < 9:
        launch.set_steps(run, 9)
    return 0


def _start(home: Path) -> int:
    """Writes what is written before a worker starts."""

    class Begun:
        pid = 0  # no process

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def kill(self) -> None:
            pass

        def wait(self) -> None:
            pass

    launch.subprocess.Popen = Begun  # type: ignore[misc, assignment]
    launch.start(find("run"))
    return 0


def _rename(home: Path) -> int:
    if (home / "runs" / "other").is_dir() and not (home / "runs" / "run").is_dir():
        return 0
    return _command("runs", "rename", "run", "other")


def _tour(home: Path) -> int:
    from tui_llm.tour.tour import Tour

    tour = Tour()
    tour.step, tour.part = 1, 0
    tour.done = {(tour.steps[0].name, 0)}
    tour.save()
    return 0


def _lesson(home: Path) -> int:
    """Saves a learner's progress through a lesson of a class."""
    from tui_llm.tour.lesson_file import find, read
    from tui_llm.tour.tour import Tour

    tour = Tour(read(find("tokens")), "Ada")
    tour.load()
    tour.step, tour.part = 1, 1
    tour.done |= {(tour.steps[0].name, 0), (tour.steps[1].name, 0)}
    tour.save()
    return 0


def _lesson_begun(home: Path) -> None:
    from tui_llm.tour.lesson_file import find, read
    from tui_llm.tour.tour import Tour

    tour = Tour(read(find("tokens")), "Ada")
    tour.part, tour.done = 1, {(tour.steps[0].name, 0)}
    tour.save()


def _remembered(home: Path) -> None:
    from tui_llm.tui.state import state_file

    state_file.merge({"prompt": "before", "model": "nano", "of another version": 1})


def _remember(home: Path) -> int:
    """Writes what changed, as the app does; the other keys stay."""
    from tui_llm.tui.state import state_file

    state_file.merge({"prompt": "after " * 2000, "sampler": {"temperature": 0.5}})
    return 0


def _damaged_state(home: Path) -> None:
    paths.state_path().write_text('{"version": 1, "prompt": "cut sh', encoding="utf-8")


def _set_aside(home: Path) -> int:
    """Sets a damaged state aside, as the app does when it starts. Until that works, it says so and goes on without."""
    from tui_llm.tui.state import state_file

    _, problem = state_file.load()
    if not paths.state_path().exists():
        return 0
    print(f"tui-llm: {problem}", file=sys.stderr)
    return 2


def _tree(home: Path) -> int:
    from tui_llm.instruments.tree import tree_file

    path = home / "tree.json"
    tree = tree_file.load(home / "kept.json") if (home / "kept.json").exists() else tree_file.load(path)
    tree_file.save(tree, path, force=True)
    return 0


def _tree_made(home: Path) -> int:
    code = _command("tree", "the cat", "--out", str(home / "tree.json"), "--depth", "1", "--branch", "2")
    shutil.copy(home / "tree.json", home / "kept.json")
    return code


def _keep(home: Path) -> int:
    from tui_llm.instruments.learn.model_folder import write_model
    from tui_llm.llm.model import checkpoint
    from tui_llm.llm.tokens import vocabulary_folder

    folder = find("run").checkpoints()[-1][1]
    write_model(vocabulary_folder.load_folder(folder), checkpoint.load(folder), "kept", "# A card\n")
    return 0


def _corpus(home: Path) -> int:
    from tui_llm.llm.data import corpus
    from tui_llm.llm.tokens.tokenizer import byte_level

    corpus.load([place(str(home / "text.txt"))], byte_level(), 0.05, block_size=8)
    return 0


def _download(home: Path) -> int:
    from tui_llm.llm.data import downloads

    downloads.fetch((home / "text.txt").as_uri(), home / "cache" / "texts" / "text.txt", None)
    return 0


def _export_over(home: Path) -> int:
    """Replaces an export by one with other weights."""
    return _command("export", "run", str(home / "exported"), "--dtype", "bfloat16", "--force")


def _branch(home: Path) -> int:
    return _command("train", "--branch", "run", "--step", "3", "--run", "twig", "--no-start")


def _new_tree(home: Path) -> int:
    """Writes a new file under a name that the user gave."""
    from tui_llm.instruments.tree import tree_file

    tree_file.save(tree_file.load(home / "kept.json"), home / "new.json")
    return 0


def _pull(home: Path) -> int:
    return pull_version(1)


def _pull_newer(home: Path) -> int:
    return pull_version(2)


# ── preference pairs ─────────────────────────────────────────────────────────────────────────────────────────────────


_ROWS = [PreferencePair("Once", f" {number}", " never") for number in range(3)]


def _ranked(home: Path) -> None:
    for pair in _ROWS[:2]:
        preference_pairs.append(home / "pairs.jsonl", pair)


def _rank(home: Path) -> int:
    """Appends the pairs that are not in the file yet."""
    path = home / "pairs.jsonl"
    for pair in _ROWS[path.read_bytes().count(b"\n") :]:  # half a row of a process that was killed is none
        preference_pairs.append(path, pair)
    return 0


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("run", _tokenised, _worker, run="run"),
        Scenario("resume", _broken_off, _worker, run="run"),
        Scenario("export", _trained, _export, once=True),
        Scenario("export beside", lambda home: _trained(home) or _export(home), _export_again, once=True),
        Scenario("vocabulary train", _learned, _learn, once=True),
        Scenario("vocabulary add", _vocabulary, _add, once=True),
        Scenario("create", _learned, _create, once=True),
        Scenario("create from", _trained, _create_from, once=True),
        Scenario("pins and control", _steered, _guarded(_steer)),
        Scenario("more steps", _trained, _guarded(_extend)),
        Scenario("start", _begun, _guarded(_start)),
        Scenario("rename", _trained, _rename, once=True),
        Scenario("tour", lambda home: None, _guarded(_tour)),
        Scenario("lesson", _lesson_begun, _guarded(_lesson)),
        Scenario("state", _remembered, _guarded(_remember)),
        Scenario("damaged state", _damaged_state, _guarded(_set_aside)),
        Scenario("tree", _tree_made, _guarded(_tree)),
        Scenario("keep", _trained, _guarded(_keep), once=True),
        Scenario("corpus", _learned, _guarded(_corpus)),
        Scenario("download", _learned, _guarded(_download)),
        Scenario("pull", lambda home: None, _guarded(_pull)),
        Scenario(
            "pull newer",
            _pull,
            _guarded(_pull_newer),
            replaced="models/owner--tiny",
            moved="models/.pulling/owner--tiny.old",
        ),
        Scenario("branch", _trained, _branch, once=True),
        Scenario("preference pairs", _ranked, _guarded(_rank)),
        Scenario(
            "export over",
            lambda home: _trained(home) or _export(home),
            _export_over,
            replaced="exported",
            moved="exported/.tui-llm-replaced-*",
        ),
        Scenario("new file", _tree_made, _guarded(_new_tree), once=True),
    )
}
