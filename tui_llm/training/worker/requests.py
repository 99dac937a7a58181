"""Serves the requests in control.json: save, pause, stop, change the learning rate, show the next batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.training.run import changes
from tui_llm.training.worker import batch_loss, distributed
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.worker import Worker


class Requests:
    """Serves the requests between two steps. Rank 0 decides and tells the others, so that all do the same.

    `save` writes a checkpoint of a step; all ranks must call it.
    """

    def __init__(self, worker: Worker, trainer: Trainer, tokenizer: Tokenizer, save: Callable[[int], None]) -> None:
        self.worker, self.trainer, self.tokenizer, self.save = worker, trainer, tokenizer, save
        self.run, self.ranks = worker.run, worker.ranks
        self._save_served: object = None  # the last request to save that was served
        self._batch_served: object = None  # the last request to show the batch that was served

    def serve(self, step: int) -> bool:
        """Serves the requests between `step` and the next. Returns False if the worker should stop."""
        if not self.ranks.first:
            return self._follow(step)
        go = self._decide(step)
        self.ranks.broadcast_order(distributed.GO if go else distributed.STOP)
        return go

    def _follow(self, step: int) -> bool:
        """The part of `serve` on the other ranks: follows rank 0's orders."""
        while True:
            order, since, rate = self.ranks.broadcast_order(distributed.GO)
            if order == distributed.SAVE:
                self.save(step)
            elif order == distributed.CHANGE:
                self.trainer.changes = [*self.trainer.changes, changes.LearningRateChange(since, rate, 0)]
            else:
                return order == distributed.GO

    def _decide(self, step: int) -> bool:
        """The part of `serve` on rank 0: reads control.json and tells the other ranks what to do."""
        control = self.run.control()
        if control.get("paused") and not self.worker.stop_requested:
            control = self._pause(step, control)
        if self.worker.must_stop(control):
            return False
        self._show_batch(step, control)
        # Before the first step there is nothing to save: the request waits for it.
        if step and control.get("save") not in (None, self._save_served):
            self._save_served = control["save"]
            self._save_everywhere(step)
            self.worker.report("running", f"saved at step {step:,}, as requested")
        if step < self.worker.settings.steps:
            self._change_learning_rate(step, control)
        return True

    def _pause(self, step: int, control: dict[str, Any]) -> dict[str, Any]:
        """Saves, then sleeps until the pause ends. Returns control.json's content at that time."""
        self._save_everywhere(step)
        self.worker.report("paused", f"paused at step {step:,}")
        if self.worker.clock is not None:
            self.worker.clock.hold()
        while control.get("paused") and not self.worker.must_stop(control):
            self._show_batch(step, control)
            self.worker.check_lock()
            time.sleep(0.1)
            control = self.run.control()
        if self.worker.clock is not None:
            self.worker.clock.go_on()
        if not self.worker.must_stop(control):
            self.worker.report("running")
        return control

    def _save_everywhere(self, step: int) -> None:
        self.ranks.broadcast_order(distributed.SAVE)
        self.save(step)

    def _change_learning_rate(self, step: int, control: dict[str, Any]) -> None:
        changed = changes.take(self.run, self.trainer.changes, step + 1, control)
        if changed is self.trainer.changes:
            return
        self.trainer.changes = changed
        since, rate = changed[-1].step, changed[-1].learning_rate
        self.ranks.broadcast_order(distributed.CHANGE, since, rate)
        self.worker.report("running", f"learning rate {rate:g} at most, from step {step + 1:,} on")

    def _show_batch(self, step: int, control: dict[str, Any]) -> None:
        if self.ranks.shard:
            return  # no process has the full model; it is gathered at evaluations only
        self._batch_served = batch_loss.answer(
            self.run, self.trainer, self.tokenizer, step, control, self._batch_served
        )
