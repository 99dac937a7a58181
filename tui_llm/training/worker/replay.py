"""Recompute one step of a run: `python -m tui_llm.training.worker.replay`, the process of plan/replay.py.

It reads JSON requests from stdin, a line each (run, step, from_start, gradients, threads), until it is closed, and writes JSON
lines to stdout, which `training/run/step_rows.py` reads: progress, the step with its rows, then each row's share of the gradient,
the tokens with the largest parts, and `done`; or one line that names the problem. The line `{"finish": true}` ends the shares of
the current request. A request for the step after the last one goes on from its state. It never writes into the run's folder.
"""

from __future__ import annotations

import functools
import json
import math
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.llm.data.token_places import TokenPlaces
from tui_llm.llm.learn.row_gradients import RowGradients
from tui_llm.llm.model import attention_only
from tui_llm.session.tokenization import bytes_of
from tui_llm.training.plan.replay import differences
from tui_llm.training.run import pins
from tui_llm.training.run.pin_readings import PinReading
from tui_llm.training.run.run import Run
from tui_llm.training.worker import measurements, pin_readings
from tui_llm.training.worker.loop import Diverged
from tui_llm.training.worker.problem_line import OTHERS, problem_line
from tui_llm.training.worker.replay_state import ReplayState

TOP = 12  # tokens with the largest loss, and as many with the largest share of the gradient

Say = Callable[[dict[str, Any]], object]


class StepReplay:
    """Step `step` of `run`, recomputed: `measure` gives the step, `gradients` then each row's share.

    `before` is the measured replay of the step before; it can't be used any more.
    """

    def __init__(
        self, run: Run, step: int, say: Say, *, from_start: bool = False, before: StepReplay | None = None
    ) -> None:
        self.step = step
        self._say = say
        if before is None:
            self.state = ReplayState(run, step - 1, self._progress, from_start=from_start)
        else:
            self.state = before.advance()
            self._token_places = before._token_places
        self.trainer = self.state.trainer
        s = self.trainer.settings
        numbers = range((step - 1) * s.grad_accumulation_steps, step * s.grad_accumulation_steps)
        batches = [self.trainer.batches.batch(number) for number in numbers]
        self.x, self.y = (torch.cat(side) for side in zip(*batches, strict=True))  # (R, T) each
        self.places = np.concatenate([self.trainer.batches.places(number) for number in numbers])  # (R, T + 1)
        self.losses: list[list[float]] = []
        self.direction: dict[str, Tensor] = {}  # the step's gradient, up to its scale
        self._after: dict[str, Tensor] = {}  # the weights after the step

    def _progress(self, text: str) -> None:
        self._say({"progress": text})

    def measure(self) -> dict[str, Any]:
        """Takes the step and returns what happened; the weights are then again those before it."""
        state, trainer = self.state, self.trainer
        self._progress("computing the loss of each token")
        self.losses = self._losses()
        before = self._pins()
        weights = {name: parameter.detach().clone() for name, parameter in trainer.model.weights()}
        try:
            loss, norm = state.step(self.step)
        except Diverged as error:
            raise UserError(str(error)) from error
        after = self._pins()
        self.direction = {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach().clone()
            for name, parameter in trainer.model.weights()
        }
        self._after = {name: parameter.detach().clone() for name, parameter in trainer.model.weights()}
        self._set(weights)
        self._progress("finding the places of the rows in the corpus")
        places = self._token_places
        pin_changes = [_change(old, new) for old, new in zip(before, after, strict=True)]
        shown = {id for side in (self.x, self.y) for id in side.flatten().tolist()}
        shown |= {one["token"] for one in pin_changes if one["token"] is not None}
        tokenizer, logged = state.tokenizer, state.logged.get(self.step)
        return {
            "step": self.step, "begun": state.begun, "loss": loss, "grad_norm": norm, "lr": state.rate(self.step),
            "logged": logged and {"loss": logged.loss, "grad_norm": logged.grad_norm},
            "why": differences(state.run, self._environment()),
            "unplaced": places.problem, "dropout": bool(trainer.settings.dropout),
            "bytes": {str(id): bytes_of(tokenizer, id).hex() for id in sorted(shown)},
            "special": [id for id in sorted(shown) if tokenizer.is_special(id)],
            "rows": self._rows(), "pins": pin_changes, "top": self._placed(_largest(self.losses)),
        }  # fmt: skip

    def _environment(self) -> dict[str, Any]:
        trainer = self.trainer
        here = {"device": str(trainer.device), "arithmetic": trainer.arithmetic}
        return measurements.environment(trainer.device) | here

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.trainer.model.weights():
            parameter.copy_(weights[name])

    def advance(self) -> ReplayState:
        """The state after this step, which `measure` has taken; that of this replay is then gone."""
        self._set(self._after)
        self.direction, self._after = {}, {}
        self.state.advanced(self.step)
        return self.state

    @torch.no_grad()
    def _losses(self) -> list[list[float]]:
        """The loss of each target, by row, with the weights before the step and without dropout."""
        trainer, found = self.trainer, []
        trainer.model.eval()
        for at in range(0, len(self.x), trainer.settings.batch_size):
            x, y = self.x[at : at + trainer.settings.batch_size], self.y[at : at + trainer.settings.batch_size]
            logits = trainer.logits(x.to(trainer.device))
            losses = F.cross_entropy(logits.flatten(0, 1), y.to(trainer.device).flatten(), reduction="none")
            found += losses.view_as(y).tolist()
        return found

    def _pins(self) -> list[PinReading]:
        model, state = self.trainer.model, self.state
        model.eval()
        try:
            wanted = pins.of_run(state.run)
        except UserError:
            return []
        return [pin_readings.read(model, state.tokenizer, pin) for pin in wanted]

    @functools.cached_property
    def _token_places(self) -> TokenPlaces:
        state, config = self.state, self.state.worker.config
        assert state.inputs.corpus is not None
        s = config.settings
        return TokenPlaces(
            config.corpus, state.inputs.corpus, state.tokenizer, s.validation_fraction, s.text_format, self._progress
        )

    def _rows(self) -> list[dict[str, Any]]:
        places = self._token_places
        parts = [places.row_parts(row) for row in self.places]
        known = places.find([token for tokens in parts for _, token in tokens])
        return [
            {
                "row": number, "ids": [int(self.x[number, 0]), *self.y[number].tolist()],
                "losses": [_finite(loss) for loss in self.losses[number]],
                "parts": [[position, _place(known[token])] for position, token in tokens if token in known],
            }
            for number, tokens in enumerate(parts)
        ]  # fmt: skip

    def _placed(self, targets: list[tuple[int, int]]) -> list[list[Any]]:
        """Targets (row, position) with their places."""
        tokens = [int(self.places[row, position + 1]) for row, position in targets]
        known = self._token_places.find(tokens)
        return [[*target, _place(known.get(token))] for target, token in zip(targets, tokens, strict=True)]

    def gradients(self) -> Iterator[dict[str, Any]]:
        """Each row's share of the gradient's norm, with those of its tokens; then the tokens with the largest parts."""
        masked = attention_only.drop_gradients if self.trainer.settings.attention_only == "on" else _nothing
        shares = RowGradients(self.trainer.model, self.direction, len(self.x), masked)
        tokens = []
        for number in range(len(self.x)):
            x, y = (side[number : number + 1].to(self.trainer.device) for side in (self.x, self.y))
            norm, share = shares.row(x, y)
            tokens.append(shares.tokens(x, y))
            yield {"row": number, "norm": norm, "share": share, "tokens": tokens[-1]}
        largest = list(dict.fromkeys([*_largest(self.losses), *_largest(tokens)]))
        yield {"top": self._placed(largest)}


def _nothing(_model: object) -> None:
    return


def _largest(values: list[list[float]]) -> list[tuple[int, int]]:
    """(row, position) of the `TOP` largest."""
    table = torch.tensor(values, dtype=torch.float64)
    order = table.nan_to_num(nan=math.inf).flatten().topk(min(TOP, table.numel())).indices.tolist()
    return [divmod(at, table.size(1)) for at in order]


def _place(place: Any) -> list[Any] | None:
    return None if place is None else [place.file, place.offset, place.record]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _change(before: PinReading, after: PinReading) -> dict[str, Any]:
    """A pin before and after the step: of its target, or of the token that was the most probable one."""
    token: int | None = None
    values: tuple[float | None, ...] = (before.probability, after.probability, before.loss, after.loss)
    if before.pin.target is None and before.candidates:
        token = before.candidates[0].id
        old, new = before.candidates[0].probability, after.of(token)
        values = old, new, *(-math.log(p) if p else None for p in (old, new))
    names = "before", "after", "loss_before", "loss_after"
    return {
        "prompt": before.pin.prompt, "target": before.pin.target, "token": token,
        **dict(zip(names, map(_finite, values), strict=True)), "problem": before.problem or after.problem,
    }  # fmt: skip


class ReplayRequests:
    """The requests that a thread reads from `lines`; `finish` is set by a line that asks to end the current one."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.finish = threading.Event()
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            try:
                asked = json.loads(line)
            except ValueError:
                continue
            if "finish" in asked:
                self.finish.set()
            else:
                self._queue.put(asked)
        self._queue.put(None)

    def next(self) -> dict[str, Any] | None:
        """Waits for a request; None once there are no more."""
        asked = self._queue.get()
        self.finish.clear()
        return asked


def _answer(asked: dict[str, Any], before: StepReplay | None, requests: ReplayRequests, say: Say) -> StepReplay:
    """Recomputes one step, from `before` if that is the step before."""
    if isinstance(threads := asked["threads"], int):
        torch.set_num_threads(threads)
    follows = before is not None and before.step == asked["step"] - 1
    run, from_start = Run(Path(asked["run"])), asked["from_start"]
    made = StepReplay(run, asked["step"], say, from_start=from_start, before=before if follows else None)
    say({"step": made.measure()})
    for found in made.gradients() if asked["gradients"] else ():
        say(found)
        if requests.finish.is_set():
            break
    say({"done": True})
    return made


def main() -> int:
    """Answers the requests in stdin. Returns the exit status, that of the last one."""

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value, allow_nan=False), flush=True)

    torch.set_flush_denormal(True)  # as the worker
    requests, before, failed = ReplayRequests(sys.stdin), None, True
    while (asked := requests.next()) is not None:
        problem = ""
        try:
            before = _answer(asked, before, requests, say)
        except BrokenPipeError:
            return 1
        except Exception as error:  # the parent reports it
            problem = problem_line(error, OTHERS)
        failed = bool(problem)
        if failed:
            before = None
            say({"problem": problem})
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
