"""What runs at each evaluation besides the validation loss.

Each function writes to the run's directory and changes nothing in the training state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.model.device import threads
from tui_llm.llm.predict.generate import generate
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.session.tokenization import bytes_of
from tui_llm.training.plan.sample_prompt import usable
from tui_llm.training.run import jsonl
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.run import Run
from tui_llm.training.worker import batch_loss, head_readings, pin_readings
from tui_llm.training.worker.loop import Trainer

Recorder = Callable[[Run, Trainer, Tokenizer, Metric], None]


def sample(run: Run, trainer: Trainer, tokenizer: Tokenizer, metric: Metric) -> None:
    """Generates a text from the sample prompt, always with the run's seed, and appends it to samples.jsonl."""
    s, model = trainer.settings, trainer.model
    prompt = usable(s.sample_prompt, tokenizer.encode)
    ids = tokenizer.encode(prompt) or [tokenizer.end_of_text or 0]
    model.eval()

    @torch.no_grad()
    def next_logits(ids: list[int]) -> torch.Tensor:
        window = torch.tensor([ids[-model.config.context :]], device=trainer.device)
        with threads(model.config.parameters() * window.numel()):
            # without the rows that pad the vocabulary
            logits: torch.Tensor = model(window, last=1)[0, -1, : tokenizer.size]
        return logits.float().cpu()

    made = [
        step.id
        for step in generate(
            next_logits,
            ids,
            SamplerSettings(0.8, top_p=0.95),
            seed=s.seed,
            start=0,
            count=s.sample_tokens,
            bytes_of=functools.partial(bytes_of, tokenizer),
        )
    ]
    line = {"step": metric.step, "prompt": prompt, "text": tokenizer.decode(made)}
    jsonl.append_to(run.samples_path, line)


def read_pins(run: Run, trainer: Trainer, tokenizer: Tokenizer, metric: Metric) -> None:
    """Appends the pin readings to probes.jsonl."""
    pin_readings.write(run, trainer, tokenizer, metric.step)


def score_heads(run: Run, trainer: Trainer, tokenizer: Tokenizer, metric: Metric) -> None:
    """Appends the scores of all attention heads to heads.jsonl."""
    head_readings.write(run, trainer, tokenizer, metric.step)


RECORDERS: tuple[Recorder, ...] = (sample, read_pins, score_heads)
"""With the weights that are evaluated."""

STEP_RECORDERS: tuple[Recorder, ...] = (batch_loss.record,)
"""With the weights that the next step changes."""
