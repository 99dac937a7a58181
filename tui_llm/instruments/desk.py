"""What an instrument may use of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tui_llm.llm.model import GPT
from tui_llm.llm.tokenizer import Tokenizer
from tui_llm.reading import Request, Target, Token, Weights


class Desk(Protocol):
    """The open model and its vocabulary. Instruments change neither: who trains, trains a copy."""

    device: torch.device

    @property
    def model(self) -> GPT:
        """Our own GPT-2. Raises `UserError`, which says so, where the open model runs through transformers."""
        ...

    @property
    def embedding(self) -> Tensor:
        """(V, C): the vector of each token, of any model; ids that only pad it included."""
        ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def remembered(self) -> dict[str, Any]:
        """What instruments keep from one question to the next, by a key of their own. Emptied with every new model."""
        ...

    def weights(self) -> Weights: ...

    def token(self, id: int) -> Token: ...

    def ids(self, request: Request) -> list[int]:
        """All that stands before the prediction: start token, prompt, continuation."""
        ...

    def logits(self, request: Request, overtaken: Callable[[], bool] = ...) -> Tensor:
        """(V,): the logits after the request's last token, from the cache where they are there already; float32, on the
        CPU, without ids that only pad the embedding. Raises `UserError` where there is no token."""
        ...

    def target_ids(self, target: Target, request: Request, following: Sequence[int] = ()) -> list[int]:
        """The target's tokens; `following` are the text's own after the position. Raises `UserError` where it has none."""
        ...
