"""The training loop: a generator of steps. No files, no screen: what it yields, others write down and show.

One step: fetch a batch, predict every next token of it, measure the cross-entropy, let the optimiser follow the gradient.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from tui_llm.llm.data.corpus import Corpus
from tui_llm.llm.data.examples import Batches, spread
from tui_llm.llm.model.device import trains_in_bfloat16
from tui_llm.llm.model.model import GPT
from tui_llm.llm.predict.units import uniform_loss
from tui_llm.training.plan.processes import share
from tui_llm.training.run.changes import Change, settings_at
from tui_llm.training.run.settings import TrainingSettings, learning_rate
from tui_llm.training.worker.distributed import Ranks, whole

EXPLODED = 10.0  # × ln V, the loss of a model that knows nothing: no spike that a run comes back from is so high


class Diverged(Exception):
    """The loss or the gradient stopped being a number, or the loss exploded. `bad` is the step whose weights gave it."""

    def __init__(self, message: str, bad: int) -> None:
        self.bad = bad
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser update. Losses in nats per token; `loss` is the batch's, before the update; `val_loss`, where it
    was measured, after it. `grad_norm` is the whole gradient's length before clipping."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens_per_second: float
    val_loss: float | None


def _advice(lr: float) -> str:
    return f"start a new run with a lower learning rate than {lr:g}"


def optimizers(model: GPT, settings: TrainingSettings, device: torch.device) -> list[torch.optim.Optimizer]:
    """AdamW for everything; or Muon for the blocks' matrices and AdamW for the rest (Jordan et al. 2024).

    Both take the same learning rate and weight decay: Muon's update is scaled by 0.2 · √max(rows, columns), which gives
    it the root mean square that AdamW's usually has (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
    """
    matrices = model.matrices() if settings.optimiser == "muon" else []
    adamw = torch.optim.AdamW(
        model.decay_groups(settings.weight_decay, without=matrices),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        fused=device.type in ("cuda", "cpu"),
    )
    if not matrices:
        return [adamw]
    muon = torch.optim.Muon(
        matrices, lr=settings.learning_rate, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, adamw]


class Trainer:
    """A model, its optimiser and its data: what a step needs, and what a checkpoint saves."""

    def __init__(
        self, model: GPT, corpus: Corpus, settings: TrainingSettings, device: torch.device, ranks: Ranks | None = None
    ) -> None:
        self.model, self.settings, self.device, self.ranks = model, settings, device, ranks or Ranks()
        self.bfloat16 = settings.precision == "bf16" or (settings.precision == "auto" and trains_in_bfloat16(device))
        # On a CPU the arithmetic of llm/model/fast.py, which has no dropout and wants whole weights; else autocast. Both keep
        # float32 weights.
        fast = self.bfloat16 and device.type == "cpu" and not settings.dropout and not self.ranks.shard
        self.products = torch.bfloat16 if fast else None
        # What a step calls: the model's loss, shared over processes, compiled where that pays (torch_compile.py). Before the
        # optimisers: it may cut the parameters up.
        self.loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = self.ranks.place(model, device, self.products)
        self.parts, self.rows = share(settings, self.ranks.rank, self.ranks.world)  # of each step, this process's
        self.optimizers = optimizers(model, settings, device)
        self.parameters = list(model.parameters())  # looking them up takes as long as a small layer
        self.changes: list[Change] = []  # of the learning rate; may grow between two steps
        self.batches = Batches(corpus.train, settings.block_size, settings.batch_size, settings.seed)
        self.validation = spread(corpus.validation, settings.block_size, settings.eval_batches * settings.batch_size)
        self.limit = EXPLODED * uniform_loss(model.config.vocabulary)  # nats per token

    @property
    def precision(self) -> str:
        """In words: what the matrix products and the weights are kept in."""
        return "bf16 matmuls, fp32 weights" if self.bfloat16 else "fp32"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """bf16 matrix products where llm/model/fast.py doesn't make them; weights, LayerNorms and the loss stay float32."""
        casts = self.bfloat16 and self.products is None
        return torch.autocast(self.device.type, torch.bfloat16) if casts else contextlib.nullcontext()

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, T) → float32 (B, T, V), in the arithmetic of `loss`."""
        with self.autocast():
            features = self.model.features(x, products=self.products)
            dtype, weight = self.products or features.dtype, self.model.head.weight[: self.model.used]
            return torch.nn.functional.linear(features.to(dtype), weight.to(dtype)).float()

    def steps(self, done: int = 0) -> Iterator[Step]:
        """Runs steps `done + 1` to `settings.steps`. Raises `Diverged` where the loss is no number any more, or above
        `limit`; the weights are then still those of the step before."""
        s = self.settings
        tokens = s.batch_size * s.block_size * s.accumulation
        for number in range(done + 1, s.steps + 1):
            began = time.perf_counter()
            lr = learning_rate(settings_at(s, self.changes, number), number)
            loss, norm = self._update(number, lr)
            seconds = time.perf_counter() - began
            evaluate = number == 1 or number % s.eval_every == 0 or number == s.steps
            val_loss = self.validate() if evaluate else None
            if val_loss is not None and not val_loss < self.limit:
                raise Diverged(f"the validation loss became {val_loss:.4g} after step {number}; {_advice(lr)}", number)
            yield Step(number, loss, lr, norm, tokens / seconds, val_loss)

    def _update(self, number: int, lr: float) -> tuple[float, float]:
        s, total = self.settings, 0.0
        if not self.model.training:  # it walks through all modules
            self.model.train()
        if s.dropout:  # its noise depends on the step (and the process) alone
            torch.manual_seed(s.seed * 1_000_003 + number + self.ranks.rank * 2_654_435_761)
        for parameter in self.parameters:
            parameter.grad = None
        for part in self.parts:
            x, y = self.batches.batch((number - 1) * s.accumulation + part)
            with self.ranks.gradients(shared=part == self.parts[-1]):
                with self.autocast():
                    loss = self.loss(x[self.rows].to(self.device), y[self.rows].to(self.device)) / len(self.parts)
                loss.backward()
            total += float(loss.detach())
        total = self.ranks.mean(total)
        most, at_once = s.clip if s.clip > 0 else math.inf, None if self.ranks.shard else True
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.parameters, most, foreach=at_once)))
        if not (total < self.limit and math.isfinite(norm)):
            raise Diverged(
                f"the loss became {total:.4g} at step {number} (gradient norm {norm:.4g}); {_advice(lr)}", number - 1
            )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        return total, norm

    @torch.no_grad()
    def check(self, step: int) -> None:
        """Raises `Diverged` where the weights hold something that is no number: not worth a checkpoint."""
        for name, parameter in self.model.weights():
            if not bool(torch.isfinite(parameter).all()):
                raise Diverged(
                    f"the weights {name} are no numbers any more after step {step}; {_advice(self.settings.learning_rate)}",
                    step,
                )

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss on the held-out rows, in nats per token. Each process reads its share of them."""
        self.model.eval()
        total, (rank, world) = 0.0, (self.ranks.rank, self.ranks.world)
        x, y = (side[rank::world] for side in self.validation)
        for i in range(0, math.ceil(len(self.validation[0]) / world), self.settings.batch_size):
            rows = slice(i, i + self.settings.batch_size)
            count = len(x[rows])
            if not count:  # all processes take equally many turns: who has no row left reads any, which doesn't count
                x, y, rows = self.validation[0], self.validation[1], slice(0, 1)
            with self.autocast():
                loss = self.loss(x[rows].to(self.device), y[rows].to(self.device))
            total += float(loss) * count
        return self.ranks.total(total) / len(self.validation[0])
