"""Benchmarks of reading and generating: compared with the machine's roofline and with transformers.

Both sides run the same model folder in one process, in alternation (A B A B, starting with a different one each round),
so that load from other processes affects both alike. OwnBackend runs as in the app, through `Window`. Letters: T tokens, P
tokens before.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint, fast_decode
from tui_llm.llm.model.machine import Machine
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.predict.window import Window

BYTES = {"fp32": 4, "half": 2, "int8": 1}  # bytes per weight


class Backend(Protocol):
    """One side of the benchmark. `read` is given the whole text, and skips the part in its cache. Each call ends with
    the next token's logits computed."""

    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        """Greedy decoding of `count` tokens after `prompt`, starting with an empty cache."""
        ...

    def read(self, ids: Sequence[int]) -> int:
        """The most probable token after `ids`. The result does not depend on earlier calls."""
        ...

    def forget(self) -> None: ...


class OwnBackend:
    """This package's model, through `Window`."""

    def __init__(self, folder: Path, place: torch.device, weights: str) -> None:
        model = checkpoint.load(folder, place)
        self.window = Window(fast_decode.predictor(model, weights), model.config.vocabulary)

    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        self.forget()
        ids = list(prompt)
        while len(ids) < len(prompt) + count:
            ids.append(self.read(ids))
        return ids[len(prompt) :]

    def read(self, ids: Sequence[int]) -> int:
        self.window.feed(ids)
        return int(self.window.logits().argmax())

    def forget(self) -> None:
        self.window.crop(0)


class Transformers:
    """`generate` with its KV cache for writing; for reading a `DynamicCache`, cropped. Text that is no continuation of
    the cached one is read from the start."""

    def __init__(self, folder: Path, place: torch.device, dtype: torch.dtype) -> None:
        try:
            import transformers
        except ImportError as error:
            raise UserError("this needs transformers: pip install transformers") from error
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype)
        self.model, self.place = model.to(place).eval(), place
        self.ids: list[int] = []
        self.cache: Any = None

    @torch.inference_mode()
    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        ids = torch.tensor([list(prompt)], device=self.place)
        made = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
                                   min_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=None)  # fmt: skip
        return [int(id) for id in made[0, len(prompt) :]]

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> int:
        from transformers.cache_utils import DynamicCache

        if self.cache is None or len(ids) <= len(self.ids) or list(ids[: len(self.ids)]) != self.ids:
            self.cache, self.ids = DynamicCache(), []
        new = torch.tensor([list(ids[len(self.ids) :])], device=self.place)
        with warnings.catch_warnings():  # releases name the argument differently; all accept this name
            warnings.simplefilter("ignore", FutureWarning)
            logits = self.model(new, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits
        self.ids = list(ids)
        return int(logits[0, -1].argmax())

    def crop(self, length: int) -> None:
        # Negative: the number of tokens to remove. Newer releases accept nothing else.
        self.cache.crop(length - len(self.ids))
        self.ids = self.ids[:length]

    def forget(self) -> None:
        self.cache, self.ids = None, []


@dataclass(frozen=True, slots=True)
class Amounts:
    """Numbers of tokens: `prompt` and `written` for decoding, `context` for typing, of which the last `changed` are
    replaced."""

    prompt: int
    written: int
    context: int
    changed: int

    @classmethod
    def of(cls, most: int, prompt: int = 64, written: int = 128, context: int = 200) -> Amounts:
        """The amounts, reduced to fit a model's context of `most` tokens. Raises `UserError` if that is impossible."""
        if most < 8:
            raise UserError(f"this model's context is {most} tokens: too few to measure with; 8 are needed")
        if min(prompt, written, context) < 1:
            raise UserError("there is nothing to measure with no tokens; give 1 or more")
        prompt = min(prompt, max(1, most // 3))
        context = min(context, most - 1)
        return cls(prompt, min(written, most - prompt), context, max(1, context // 4))


Work = Callable[[], tuple[float, int]]  # seconds, and number of repetitions in them


def works(reader: Backend, ids: Sequence[int], amounts: Amounts, kind: str, clock: Callable[[], float]) -> dict[str, Work]:  # fmt: skip
    """The measurements of `kind`, decode or typing. `ids`: random ones, at least one more than the context."""
    prompt, context = list(ids[: amounts.prompt]), list(ids[: amounts.context])
    other = [*context[: -amounts.changed], ids[amounts.context], *context[len(context) - amounts.changed + 1 :]]

    def timed(before: Callable[[], object], work: Callable[[], object], times: int = 1) -> tuple[float, int]:
        before()
        began = clock()
        work()
        return clock() - began, times

    def fill_cache() -> None:
        """Fill the cache with all but the last token of the context, as if that had been typed before and deleted."""
        if isinstance(reader, Transformers):
            if reader.ids != context:
                reader.read(context)
            reader.crop(len(context) - 1)
        else:
            reader.read(context[:-1])

    if kind == "decode":
        return {
            "decode": lambda: timed(reader.forget, lambda: reader.write(prompt, amounts.written), amounts.written),
            "first token": lambda: timed(reader.forget, lambda: reader.read(prompt)),
        }
    return {
        "typed token": lambda: timed(fill_cache, lambda: reader.read(context)),
        "changed token": lambda: timed(lambda: reader.read(context), lambda: reader.read(other)),
    }


def in_turn(sides: dict[str, Work], rounds: int) -> Iterator[dict[str, float]]:
    """Run all sides in alternation, after one warm-up each. Yields the seconds per repetition of each side, for each
    round."""
    names = list(sides)
    for name in names:
        sides[name]()
    for number in range(rounds):
        taken = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds, times = sides[name]()
            taken[name] = seconds / times
        yield taken


def medians(taken: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median over all rounds, for each side."""
    return {name: statistics.median(one[name] for one in taken) for name in taken[0]}


def ratio(taken: Sequence[dict[str, float]], ours: str, theirs: str) -> float:
    """How many times faster `ours` is: the median of the ratios within each round."""
    return statistics.median(one[theirs] / one[ours] for one in taken)


def least_seconds(config: GPTConfig, new: int, past: int, weights: str, machine: Machine) -> float | None:
    """The roofline bound for running `new` tokens after `past` ones, up to the logits after the last: the longer of
    compute time, at the peak of fp32 matrix products, and the time to read weights and cache from memory (Williams,
    Waterman and Patterson 2009). None if one of these rates is not known, or only a lower bound of it.

    For int8 no peak is measured, so only memory counts.
    """
    read, products = machine.peak("read"), machine.peak("fp32")
    if read is None or (products is None and weights != "int8"):
        return None
    seconds = moved(config, new, past, weights) / read
    return seconds if weights == "int8" or products is None else max(seconds, flops(config, new, past) / products)


def roofline_share(least: float | None, seconds: float) -> float | None:
    """The share of the roofline's speed that `seconds` reaches. None if unknown, or above 1: then the weights lie in the processor's
    cache, whose bandwidth is not measured, or the peak was measured wrong."""
    return least / seconds if least is not None and least <= seconds else None


def flops(config: GPTConfig, new: int, past: int) -> int:
    """Floating-point operations to run `new` tokens after `past` ones, up to the logits after the last."""
    # Pairs of a query and a key.
    seen = (
        sum(min(at, config.window) for at in range(past + 1, past + new + 1))
        if config.window
        else new * past + new * (new + 1) // 2
    )
    return 2 * _blocks(config) * new + 2 * config.vocabulary * config.width + 4 * config.layers * config.width * seen


def moved(config: GPTConfig, new: int, past: int, weights: str) -> int:
    """Bytes read from memory for that: each weight once, and the cache, whose keys and values are fp32."""
    matrices = _blocks(config) + config.vocabulary * config.width
    seen = min(past + new, config.window or past + new)
    return BYTES[weights] * matrices + 8 * config.layers * config.key_heads * config.size * seen


def _blocks(config: GPTConfig) -> int:
    return config.layers * config.block_matrices()
