"""The files that the rows of a step come from, for the alarm on outlier rows: from the seed and the step, as in a replay."""

from __future__ import annotations

import functools
from contextlib import suppress

import torch
import torch.nn.functional as F

from tui_llm.common.errors import UserError
from tui_llm.facts.token_place import TokenPlace
from tui_llm.llm.data.examples import Ints
from tui_llm.llm.data.token_places import TokenPlaces
from tui_llm.training.worker.inputs import Inputs
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.worker import Worker

LARGEST = 32e6  # bytes of a corpus whose files are read again, while training waits; of a larger one, `tui-llm replay` names them


class RowPlaces:
    """See `RowFiles`. Nothing is read before the first outlier row."""

    def __init__(self, worker: Worker, loaded: Inputs, trainer: Trainer) -> None:
        self.worker, self.loaded, self.trainer = worker, loaded, trainer

    @functools.cached_property
    def _places(self) -> TokenPlaces | None:
        """None if the places of tokens are unknown, or not known in a short time."""
        config, text, s = self.worker.config, self.loaded.corpus, self.trainer.settings
        if text is None or (len(text.train) + len(text.validation)) * text.bytes_per_token > LARGEST:
            return None
        with suppress(UserError, OSError):  # a file is gone
            found = TokenPlaces(config.corpus, text, self.loaded.tokenizer, s.validation_fraction, s.text_format)
            return None if found.problem else found
        return None

    def _row(self, step: int, row: int) -> Ints:
        """Where in the training data the tokens of the row are, (T + 1,)."""
        s = self.trainer.settings
        return self.trainer.batches.row_places((step - 1) * s.grad_accumulation_steps * s.batch_size + row)

    def files(self, step: int, row: int) -> list[str]:
        """The files of the row, each once, in the order of its tokens; empty if unknown."""
        places = self._places
        if places is None:
            return []
        return list(dict.fromkeys(places.file(token) for _, token in places.row_parts(self._row(step, row))))

    def place(self, step: int, row: int) -> TokenPlace | None:
        """Where the part of the row begins that has most of its loss above the mean; None if unknown."""
        if self._places is None:
            return None
        tokens = self._row(step, row)
        parts = self._places.row_parts(tokens)
        _, token = parts[0] if len(parts) == 1 else self._worst(tokens, parts)
        try:
            return self._places.find([token]).get(token)
        except (UserError, OSError):  # a file is gone: nothing is looked up any more
            self._places = None
            return None

    @torch.no_grad()
    def _worst(self, tokens: Ints, parts: list[tuple[int, int]]) -> tuple[int, int]:
        """The part with the largest sum of losses above the row's mean, with the weights as they are; with sharded weights,
        which one process can't use alone, the longest part."""
        trainer, ends = self.trainer, [*(first for first, _ in parts[1:]), len(tokens)]
        if trainer.ranks.shard:
            return max(zip(parts, ends, strict=True), key=lambda one: one[1] - one[0][0])[0]
        ids = torch.from_numpy(trainer.batches.ids[tokens].astype("int64")).to(trainer.device)
        trainer.model.eval()
        losses = F.cross_entropy(trainer.logits(ids[None, :-1])[0], ids[1:], reduction="none")  # (T,)
        above = (losses - losses.mean()).tolist()
        # Target p is token p + 1.
        sums = [sum(above[max(0, first - 1) : end - 1]) for (first, _), end in zip(parts, ends, strict=True)]
        return parts[sums.index(max(sums))]
