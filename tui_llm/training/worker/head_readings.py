"""Measures the scores of all heads on repeated random tokens and writes them to heads.jsonl.

The tokens are the same at each evaluation. They have their own random generator, and the weights are only read, so the
training continues exactly as without it.
"""

from __future__ import annotations

from tui_llm.common.errors import UserError
from tui_llm.llm.model import head_scores
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.training.run import head_readings, jsonl
from tui_llm.training.run.run import Run
from tui_llm.training.worker.loop import Trainer

LENGTH = 24  # random tokens, before they are repeated: one short text, to cost a run little
SEED = 1


def write(run: Run, trainer: Trainer, tokenizer: Tokenizer, step: int) -> None:
    """Appends the scores after `step` steps. Writes nothing if the detector's text does not fit the context, or a score is
    not finite. Raises OSError if the disk is full."""
    model = trainer.model
    model.eval()
    try:
        ids = head_scores.ordinary(tokenizer.size, tokenizer.is_special)
        length = head_scores.room(model.config.context, LENGTH, len(ids), tokenizer.start)
        text = head_scores.repeated(ids, length, SEED, tokenizer.start)
        scores = head_scores.score(model, [text]).scores()
    except UserError:
        return
    jsonl.append_to(run.heads_path, head_readings.line(step, scores))


def begin(run: Run, trainer: Trainer, tokenizer: Tokenizer) -> None:
    """Records the untrained model at step 0, unless an earlier worker has done so."""
    if not head_readings.evaluations(run):
        write(run, trainer, tokenizer, 0)
