"""Read the checkpoints of a foreign folder: `python -m tui_llm.training.worker.foreign`, the process of plan/foreign.py.

It reads a JSON request from stdin (source, device) and writes JSON lines to stdout: progress, and `done`, or a problem. Of each
checkpoint it reads the pins, the logit lens of the pins, the scores of all heads and a sample, with the code that answers for the
open model; each is appended to the files of the cached folder. A checkpoint that can't be opened is noted with the reason.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from tui_llm.common import storage
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.facts.pin import Pin
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.heads.answer import answer as heads_answer
from tui_llm.instruments.heads.question import HeadsQuestion
from tui_llm.instruments.lens.answer import answer as lens_answer
from tui_llm.instruments.lens.question import LensQuestion
from tui_llm.session.continuation import continuation
from tui_llm.session.open_model import OpenModel, never
from tui_llm.training.run import head_readings, jsonl, pin_readings, pins
from tui_llm.training.run.foreign import digests, lens_readings
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.foreign.lens_readings import LensEvaluation, LensReading, LensStepRow
from tui_llm.training.run.foreign.readings import ReadingsIndex, StepRecord, mark_of
from tui_llm.training.run.foreign.step_folders import StepFolder
from tui_llm.training.run.pin_readings import PinCandidate, PinEvaluation, PinReading, PinTargetToken
from tui_llm.training.run.run_lock import RunLock
from tui_llm.training.worker.pin_readings import LONGEST_TARGET, TOP
from tui_llm.training.worker.problem_line import OTHERS, problem_line

SAMPLE_TOKENS, SAMPLER, SEED = 40, SamplerSettings(0.8, top_p=0.95), 1
VOCABULARY = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
"""The files of a vocabulary, which some programs write only once, beside the checkpoints."""

Say = Callable[[dict[str, Any]], object]


class FolderReader:
    """Reads what is not known yet of each checkpoint of `run`."""

    def __init__(self, run: ForeignRun, device: str, say: Say) -> None:
        self.run, self.device, self.say = run, device, say
        self.steps = run.steps()
        self.pins = run.use_pins()
        self.index = ReadingsIndex(run.path)

    def read(self) -> None:
        """Reads all checkpoints, the oldest first. Raises `UserError` or OSError if the cache can't be written."""
        self.index.forget_changed(self.steps)
        self.say({"text": "comparing the files of the checkpoints"})
        self.index.same = digests.same_weights(self.steps, self.index.digests, lambda text: self.say({"text": text}))
        self.index.write()
        pins_read = {one.step: one for one in pin_readings.evaluations(self.run)}
        lenses = {one.step: one for one in self.run.lenses()}
        for at, step in enumerate(self.steps, 1):
            known, lens = pins_read.get(step.step), lenses.get(step.step)
            wanted = [pin for pin in self.pins if known is None or known.of(pin) is None]
            unlensed = [pin for pin in self.pins if lens is None or lens.of(pin) is None]
            record = self.index.steps.get(step.step)
            if record is not None and not wanted and (not unlensed or record.problems):
                continue
            self.say({"text": f"reading {step.name}", "at": at, "of": len(self.steps)})
            self._read(step, known, lens, wanted, unlensed)
            self.say({"text": f"read {step.name}", "at": at, "of": len(self.steps), "read": True})

    def _read(
        self, step: StepFolder, known: PinEvaluation | None, lens: LensEvaluation | None, wanted: list[Pin], unlensed: list[Pin]
    ) -> None:  # fmt: skip
        first = step.step not in self.index.steps
        mark, record = mark_of(step.path), StepRecord("")
        record.mark = mark
        try:
            with self._with_vocabulary(step) as folder:
                model = OpenModel(self.device)
                model.open(str(folder))
                readings = (*(known.readings if known else ()), *(read_pin(model, pin) for pin in wanted))
                evaluation = PinEvaluation(step.step, readings)
                jsonl.append_to(self.run.pin_readings_path, pin_readings.line(evaluation))
                self._note(record, lambda: self._lens(model, step.step, lens, unlensed))
                if first:
                    self._note(record, lambda: self._heads(model, step.step))
                    self._note(record, lambda: self._sample(model, step.step))
        except UserError as error:
            record.problems.append(_line(error, step))
        self.index.steps[step.step] = record
        self.index.write()

    def _note(self, record: StepRecord, part: Callable[[], None]) -> None:
        """Runs a part; a model that it can't be read of is noted with the reason."""
        try:
            part()
        except UserError as error:
            record.problems.append(in_one_line(error))

    def _lens(self, model: OpenModel, step: int, known: LensEvaluation | None, wanted: list[Pin]) -> None:
        found = [*(known.lenses if known else ()), *(read_lens(model, pin) for pin in wanted)]
        jsonl.append_to(self.run.lens_path, lens_readings.line(LensEvaluation(step, tuple(found))))

    def _heads(self, model: OpenModel, step: int) -> None:
        found = heads_answer(model, HeadsQuestion(Request()), never)
        jsonl.append_to(self.run.heads_path, head_readings.line(step, found.heads))

    def _sample(self, model: OpenModel, step: int) -> None:
        prompt = self.pins[0].prompt
        ids = model.ids(Request(prompt=prompt))
        made = [
            token.id for token in continuation(model, ids, SAMPLER, seed=SEED, count=SAMPLE_TOKENS, overtaken=never)
        ]
        text = model.tokenizer.decode(made)
        jsonl.append_to(self.run.samples_path, {"step": step, "prompt": prompt, "text": text})

    @contextmanager
    def _with_vocabulary(self, step: StepFolder) -> Iterator[Path]:
        """The checkpoint itself or, if it is a folder without a vocabulary, a temporary folder of links to its files and to those
        of a vocabulary that lies beside it or in another checkpoint."""
        places = [self.run.source, *(one.path for one in self.steps)]
        beside = next((place for place in places if place.is_dir() and _has_vocabulary(place)), None)
        if not step.path.is_dir() or _has_vocabulary(step.path) or beside is None:
            yield step.path
            return
        folder = storage.temporary_folder(self.run.path, "with-vocabulary-")
        try:
            files = {path.name: path for path in step.path.iterdir() if path.is_file()}
            for name in VOCABULARY:
                if (beside / name).is_file():
                    files.setdefault(name, beside / name)
            for name, path in files.items():
                storage.symlink(Path(os.path.realpath(path)), folder / name)
            yield folder
        except OSError as error:
            raise UserError(
                f"{step.name} has no vocabulary, and links to that of {beside} can't be made ({error.strerror}); copy its files there"
            ) from error
        finally:
            storage.rmtree(folder, ignore_errors=True)


def _has_vocabulary(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or all((folder / n).is_file() for n in ("vocab.json", "merges.txt"))


def _line(error: UserError, step: StepFolder) -> str:
    return f"{step.name} can't be opened: {' '.join(str(error).split())}"


def read_pin(model: OpenModel, pin: Pin) -> PinReading:
    """The predictions of the open model for a pin, of any architecture. Never raises because of the pin's text.

    The numbers are those of a Reading: softmax of the logits, and teacher-forced losses.
    """
    try:
        request = Request(prompt=pins.check(pin).prompt)
        ids = model.ids(request)
        wanted = model.target_ids(Target(text=pin.target), request) if pin.target else []
        problem = ""
        if len(ids) > (context := model.window.context):
            problem = (
                f"the model's context is {context} tokens: it sees the last {context} of the prompt's {len(ids):,}"
            )
        if len(wanted) > LONGEST_TARGET:
            problem = f"the target has {len(wanted):,} tokens; a pin's loss is read for up to {LONGEST_TARGET}"
            wanted = []
        model.logits(request)  # feeds the prompt
        logits = model.window.sorted()
        losses = model.target_losses(wanted, min(len(ids), context), never) if wanted else []
    except UserError as error:
        return PinReading(pin, problem=str(error))
    top = list(zip(logits.order[:TOP].tolist(), logits.raw[:TOP].tolist(), strict=True))
    return PinReading(
        pin,
        logits.entropy,
        tuple(PinCandidate(id, model.bytes_of(id), p) for id, p in top),
        tuple(PinTargetToken(t.id, model.bytes_of(t.id), t.nats, t.probability, t.rank) for t in losses),
        problem,
    )


def read_lens(model: OpenModel, pin: Pin) -> LensReading:
    """The logit lens after the last token of the pin's prompt. Raises `UserError`."""
    target = Target(text=pin.target) if pin.target else None
    found = lens_answer(model, LensQuestion(Request(prompt=pin.prompt, target=target), top=1), never)
    rows = tuple(
        LensStepRow(row.layer, model.bytes_of(row.guesses[0].token.id), row.guesses[0].probability, row.probability, row.rank)
        for row in found.rows
    )  # fmt: skip
    return LensReading(pin, model.bytes_of(found.target.id), rows)


def main() -> int:
    """Reads one request from stdin. Returns the exit status."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints

    def say(record: dict[str, Any]) -> None:
        print(json.dumps(record), file=out, flush=True)

    try:
        asked = json.load(sys.stdin)
        run = ForeignRun(Path(asked["source"]))
        storage.make_folders(run.path)
        lock = RunLock(run.path)
        lock.acquire()
        try:
            FolderReader(run, asked["device"], say).read()
        finally:
            lock.release()
        say({"done": True})
        return 0
    except Timeout:
        problem = "another process of tui-llm is reading this folder; wait until it is done"
    except Exception as error:  # the parent reports it
        problem = problem_line(error, OTHERS)
    say({"problem": problem})
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
