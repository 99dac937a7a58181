"""The training loop: a generator of steps. It writes no files; the caller records what it yields.

One step: fetch a batch, compute the cross-entropy of every next token, run the backward pass, update the weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

import torch

from tui_llm.llm.data.corpus import Corpus
from tui_llm.llm.data.examples import Batches, evenly_spaced
from tui_llm.llm.model import aligned_head, attention_only
from tui_llm.llm.model.device import trains_in_bfloat16
from tui_llm.llm.model.fast_step import FastStep
from tui_llm.llm.model.flat import FlatParameters
from tui_llm.llm.model.model import GPT, capped
from tui_llm.llm.model.native_training_step import NativeTrainingStep
from tui_llm.llm.predict.units import uniform_loss
from tui_llm.training.plan import cost
from tui_llm.training.plan.processes import share
from tui_llm.training.run.changes import LearningRateChange, settings_at
from tui_llm.training.run.matrix_statistics import rows as observed_rows
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.row_losses import summary
from tui_llm.training.run.settings import TrainingSettings
from tui_llm.training.run.time_plan import TimePlan, learning_rate_at
from tui_llm.training.worker.distributed import Losses, Ranks, whole
from tui_llm.training.worker.gpu_step import Upload, guard, skips_updates
from tui_llm.training.worker.matrix_recorder import MatrixRecorder
from tui_llm.training.worker.optimizers import WeightAverage, momentum, optimizers

EXPLODED = 10.0  # × ln V, the loss of a uniform prediction: runs don't recover from a loss above that


class Diverged(Exception):
    """The loss or the gradient is no longer finite, or the loss exploded. `bad` is the step whose weights caused it."""

    def __init__(self, message: str, bad: int) -> None:
        self.bad = bad
        super().__init__(message)


class Trainer:
    """A model with its optimizers and data: everything that a step needs and a checkpoint saves."""

    def __init__(
        self,
        model: GPT,
        corpus: Corpus | None,
        settings: TrainingSettings,
        device: torch.device,
        ranks: Ranks | None = None,
    ) -> None:
        """`corpus` is None where a subclass has its own data; it then overrides what reads `batches` and `validation`."""
        self.model, self.settings, self.device, self.ranks = model, settings, device, ranks or Ranks()
        self.bfloat16 = settings.precision == "bf16" or (settings.precision == "auto" and trains_in_bfloat16(device))
        # A CPU uses llm/model/fast.py, which supports neither dropout nor sharded weights; otherwise bf16 is autocast.
        # Both keep float32 weights.
        fast = device.type == "cpu" and not settings.dropout and not self.ranks.shard
        self.products = (torch.bfloat16 if self.bfloat16 else torch.float32) if fast else None
        # The model's losses, distributed and, if configured, compiled (torch_compile.py). It must precede the optimizers,
        # since it may replace the parameters by shards.
        if device.type == "cuda" and not self.ranks.shard:
            aligned_head.align(model)
        self.losses: Losses = self.ranks.place(model, device, self.products)
        self.parts, self.rows = share(settings, self.ranks.rank, self.ranks.world)  # this process's share of each step
        # The mean loss of each row of the last step, on text; on a process of several, until all are gathered, of its own.
        self.row_losses: list[float] = []
        self._unread: list[torch.Tensor] = []  # the same on the device, if `reads_late`
        flat = device.type == "cpu" and self.ranks.world == 1 and FlatParameters.fits(model)
        self.flat = FlatParameters(model) if flat else None
        self.optimizers = optimizers(model, settings, device, self.flat)
        # Whether loss and norm are read after the update was launched, so that the GPU does not wait for Python in between.
        self.reads_late = device.type == "cuda" and self.ranks.world == 1 and skips_updates(self.optimizers)
        self.done: int | None = 0  # the step after which the weights are; None while they are updated
        self.upload = Upload(device)
        self.average = WeightAverage(model, settings.ema_decay, self.flat) if settings.ema_decay else None
        # Forward and backward without autograd, where they can be; `losses` otherwise, and without gradients.
        self.fast_step: FastStep | NativeTrainingStep | None = None
        if self.flat is not None and self.products is not None:
            if NativeTrainingStep.fits(model):
                self.fast_step = NativeTrainingStep(model, self.flat, self.products)
            elif FastStep.fits(model):
                self.fast_step = FastStep(model, self.flat, self.products)
        self.parameters = list(model.parameters())  # cached: collecting them takes as long as a small layer
        self.changes: list[LearningRateChange] = []  # of the learning rate; may be replaced between two steps
        self.plans: list[TimePlan] = []  # of a run with a time budget; `settings.steps` is what the last one says
        if corpus is not None:
            separator = corpus.separator if settings.shuffle_documents == "on" else None
            self.batches = Batches(
                corpus.train, settings.block_size, settings.batch_size, settings.seed, separator=separator
            )
            self.validation = evenly_spaced(
                corpus.validation, settings.block_size, settings.eval_batches * settings.batch_size
            )
        self.step_tokens = settings.batch_size * settings.block_size * settings.grad_accumulation_steps
        self.measured: dict[str, float] = {}  # further fields of the step's `Metric`
        self.matrices: MatrixRecorder | None = None  # may be set between two steps; not where weights are sharded
        self.limit = EXPLODED * uniform_loss(model.config.vocabulary)  # nats per token

    @property
    def precision(self) -> str:
        """The precision of matrix products and weights, for display."""
        return "bf16 matmuls, fp32 weights" if self.bfloat16 else "fp32"

    @property
    def arithmetic(self) -> str:
        """The precision and what computes the step, for display. Runs with equal arithmetic give equal bits."""
        if self.fast_step is None:
            return self.precision
        return f"{self.precision}, {self.fast_step.name}"

    @property
    def flops_per_token(self) -> float | None:
        """The operations of a training step per token that the step counts; see `cost.flops_per_token`. None where the steps
        differ: then each one's `Metric` has its own."""
        return cost.flops_per_token(self.model.config, self.settings.block_size)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Returns bf16 autocast, or a null context for fp32 and for llm/model/fast.py.

        Weights, LayerNorms and the loss stay float32.
        """
        casts = self.bfloat16 and self.products is None
        return torch.autocast(self.device.type, torch.bfloat16) if casts else contextlib.nullcontext()

    def evaluated_weights(self) -> contextlib.AbstractContextManager[object]:
        """While the body runs, the model has the weights that are evaluated and exported: their average, if there is one."""
        return contextlib.nullcontext() if self.average is None else self.average.in_model()

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the float32 logits (B, T, V) of x (B, T), computed in the precision of `loss`."""
        with self.autocast():
            features = self.model.features(x, products=self.products)
            dtype, weight = self.products or features.dtype, self.model.head.weight[: self.model.used]
            logits = torch.nn.functional.linear(features.to(dtype), weight.to(dtype)).float()
            return capped(logits, self.model.config.softcap)

    def steps(self, done: int = 0) -> Iterator[Metric]:
        """Runs steps `done + 1` to `settings.steps`, which may change in between, and yields the metrics of each.

        Raises `Diverged` if the loss or the gradient norm is not finite or the loss is not below `limit`. If the
        training loss or the gradient is the cause, the weights are still those before the step.
        """
        number = self.done = done
        while number < self.settings.steps:
            s, number = self.settings, number + 1
            began = time.perf_counter()
            lr = learning_rate_at(settings_at(s, self.changes, number), self.plans, number)
            loss, norm = self._update(number, lr)
            seconds = time.perf_counter() - began - self._measuring()
            evaluate = number == 1 or number % s.eval_every == 0 or number == s.steps
            val_loss = None
            if evaluate:  # not at each step: an average of the weights is put in their place
                with self.evaluated_weights():
                    val_loss = self.validate()
            if val_loss is not None and not val_loss < self.limit:
                raise Diverged(
                    f"the validation loss became {val_loss:.4g} after step {number}; {self._advice(number)}", number
                )
            measured = self.measured | summary(self.row_losses)
            yield Metric(number, loss, lr, norm, self.step_tokens / seconds, val_loss, **measured)  # type: ignore[arg-type]

    def _advice(self, number: int) -> str:
        """Returns what helps against a divergence at step `number`.

        It names the peak, which is what was typed: the rate at this step may still be warming up.
        """
        peak = settings_at(self.settings, self.changes, number).learning_rate
        if peak != self.settings.learning_rate:
            change = "change it to a lower one (tui-llm control RUN --learning-rate R)"
            return f"its learning rate was changed to {peak:g}: {change}, then resume it"
        return f"start a new run with a lower learning rate than {peak:g}"

    def _update(self, number: int, lr: float) -> tuple[float, float]:
        s = self.settings
        if not self.model.training:  # `train` visits all modules, so call it only if needed
            self.model.train()
        if s.dropout:  # dropout's noise depends on the seed, the step and the rank alone
            torch.manual_seed(s.seed * 1_000_003 + number + self.ranks.rank * 2_654_435_761)
        for parameter in self.parameters:
            parameter.grad = None
        if self.matrices is not None and self.matrices.due(number):
            with self.matrices.timed():
                self._observe(self.matrices, number)
        total = self._backward(number)
        if not isinstance(total, torch.Tensor) and self.ranks.world > 1:
            total = self._gathered(total)
        norm = self._apply(number, lr, total)
        return float(total), norm  # of a tensor, `_apply` has waited for the value

    def _gathered(self, total: float) -> float:
        """The mean of all processes' losses; `row_losses` become those of all rows of the step."""
        s, world = self.settings, self.ranks.world
        totals, rows = list[float](), [math.nan] * (s.batch_size * s.grad_accumulation_steps)
        for rank, (one, *losses) in enumerate(self.ranks.gather([total, *self.row_losses])):
            totals.append(one)
            parts, mine = share(s, rank, world)
            places = (part * s.batch_size + row for part in parts for row in range(s.batch_size)[mine])
            for place, loss in zip(places, losses, strict=True):
                rows[place] = loss
        self.row_losses = rows
        return sum(totals) / world

    def _observe(self, matrices: MatrixRecorder, number: int) -> None:
        """Has the blocks' outputs of step `number` measured: during the step itself where `fast_step` makes it."""
        matrices.begin()
        if self.fast_step is not None:
            tokens = observed_rows(self.settings.batch_size) * self.settings.block_size
            self.fast_step.observe = lambda x: matrices.observe(x[:tokens])
        elif (ids := self.first_rows(number)) is not None:
            matrices.run(ids.to(self.device), self.autocast(), self.products)

    def first_rows(self, number: int) -> torch.Tensor | None:
        """Ids (B, T) of the first rows of step `number` that the activation scales are measured on; None if there are none."""
        first = (number - 1) * self.settings.grad_accumulation_steps + self.parts[0]
        return self.batches.batch(first)[0][self.rows][: observed_rows(self.settings.batch_size)]

    def _measuring(self) -> float:
        """The seconds of the last step that went into measuring its matrices: on a CPU, since on another device the time
        includes the wait for the step itself."""
        if self.matrices is None:
            return 0.0
        seconds, self.matrices.seconds = self.matrices.seconds, 0.0
        return seconds if self.device.type == "cpu" else 0.0

    def _apply(self, number: int, lr: float, total: float | torch.Tensor) -> float:
        """Updates the weights with the gradient of a loss of `total`, which is on the GPU if `reads_late`. Returns the gradient's
        norm before it is clipped."""
        s = self.settings
        if s.attention_only == "on":
            attention_only.drop_gradients(self.model)
        if self.flat is not None:
            self.flat.collect()
        matrices = self.matrices if self.matrices is not None and self.matrices.due(number) else None
        if matrices is not None:
            with matrices.timed():
                matrices.before(number)
        norm = self._clip(s.clip if s.clip > 0 else math.inf)
        unread = None
        if isinstance(total, torch.Tensor):
            unread = torch.cat((guard(self.optimizers, total, torch.as_tensor(norm), self.limit), *self._unread))
        else:
            norm = self._check(number, total, float(norm))
        self.done = None
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
                if "momentum" in group:  # Muon's
                    group["momentum"] = momentum(s, number)
            optimizer.step()
        if unread is not None:
            loss, norm, *self.row_losses = unread.tolist()
            norm = self._check(number, loss, norm)
        if self.average is not None:
            self.average.update()
        self.done = number
        if matrices is not None:
            with matrices.timed():
                matrices.after()
        return float(norm)

    def _check(self, number: int, total: float, norm: float) -> float:
        """Raises `Diverged` unless loss and gradient norm of step `number` are usable. Returns the norm."""
        if not (total < self.limit and math.isfinite(norm)):
            raise Diverged(
                f"the loss became {total:.4g} at step {number} (gradient norm {norm:.4g}); {self._advice(number)}",
                number - 1,
            )
        return norm

    def _clip(self, most: float) -> float | torch.Tensor:
        """Clips the gradient's norm to `most`. Returns the norm before, on the device if `reads_late`."""
        if self.flat is not None:
            return self.flat.clip(most)
        at_once = None if self.ranks.shard else True
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, most, foreach=at_once)
        return norm if self.reads_late else float(whole(norm))

    def _backward(self, number: int) -> float | torch.Tensor:
        """Runs forward and backward pass of this process's part of step `number`; returns its loss, on the device if
        `reads_late`, and sets `row_losses` or `_unread`."""
        s, total = self.settings, torch.zeros((), device=self.device) if self.reads_late else 0.0
        self.row_losses, self._unread = [], []
        if self.fast_step is not None:
            self.fast_step.cast()
        first = (number - 1) * s.grad_accumulation_steps
        parts = [first + part for part in self.parts] + [first + s.grad_accumulation_steps + self.parts[0]]
        for part, following in zip(self.parts, parts[1:], strict=True):
            x, y = self.upload.take(first + part, self._rows)
            if self.fast_step is not None:
                total += self.fast_step.gradients(x, y, 1 / len(self.parts), first=part == self.parts[0])
                self.row_losses += self.fast_step.rows
                continue
            with self.ranks.gradients(shared=part == self.parts[-1]):
                with self.autocast():
                    loss, rows = self.losses(x, y)
                    loss = loss / len(self.parts)
                loss.backward()
            self.upload.begin(following, self._rows)
            if self.reads_late:
                total += loss.detach()
                self._unread.append(rows)
            else:  # one read for both
                one, *row_losses = torch.cat((loss.detach().view(1), rows)).tolist()
                total += one
                self.row_losses += row_losses
        return total

    def _rows(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """This process's rows of batch `batch`, on the CPU."""
        x, y = self.batches.batch(batch)
        return x[self.rows], y[self.rows]

    @torch.no_grad()
    def check(self, step: int) -> None:
        """Raises `Diverged` if a weight is not finite: such weights must not be saved."""
        for name, parameter in self.model.weights():
            if not bool(torch.isfinite(parameter).all()):
                raise Diverged(
                    f"the weights {name} are not finite after step {step}; {self._advice(step)}",
                    step,
                )

    @torch.no_grad()
    def validate(self) -> float:
        """Returns the mean loss on the held-out rows, in nats per token. Each process computes a share of the rows."""
        self.model.eval()
        if self.fast_step is not None:
            self.fast_step.release()
        total, (rank, world) = 0.0, (self.ranks.rank, self.ranks.world)
        x, y = (side[rank::world] for side in self.validation)
        for i in range(0, math.ceil(len(self.validation[0]) / world), self.settings.batch_size):
            rows = slice(i, i + self.settings.batch_size)
            count = len(x[rows])
            if not count:  # all processes must call `loss` equally often: without a row left, use any row with weight 0
                x, y, rows = self.validation[0], self.validation[1], slice(0, 1)
            with self.autocast():
                loss, _ = self.losses(x[rows].to(self.device), y[rows].to(self.device))
            total += float(loss) * count
        return self.ranks.total(total) / len(self.validation[0])
