"""The open model's tuned lens: read from the file beside its weights, or fitted and written there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tui_llm.common import new_files
from tui_llm.common.errors import UserError
from tui_llm.facts.model import Weights
from tui_llm.instruments.trace import causal_layout
from tui_llm.llm.adapters.parts import CausalReadout
from tui_llm.llm.data import corpus
from tui_llm.llm.data.corpora import place
from tui_llm.llm.data.examples import Batches, evenly_spaced
from tui_llm.llm.data.formats import AUTO, TextFormat
from tui_llm.llm.learn.fit_lens import LEARNING_RATE, LensFit, Readout, divergences
from tui_llm.llm.model import tuned_lens_file
from tui_llm.llm.model.inside import GPTReadout
from tui_llm.llm.model.tuned_lens import TunedLens
from tui_llm.session.open_model import OpenModel, never

KEY = "tuned lens"
TOKENS = LONGEST = 1024  # of a batch, and of a text in it
HELD_OUT_FRACTION = 0.02
HELD_OUT_TOKENS = 16_384  # at most, on which the lenses are compared
STEPS = 1000


def tuned_lens(open_model: OpenModel, overtaken: Callable[[], bool] = never) -> TunedLens:
    """The lens that was fitted to the open model's weights; cached. Raises `UserError` if it has none, or the file is
    damaged or of other weights."""
    name, weights = open_model.weights().name, open_model.weights()
    path = tuned_lens_file.path_of(open_model.folder)
    fit = f"tui-llm fit-lens TEXT … --model {name}"
    try:
        stat = path.stat()
    except OSError:
        raise UserError(f"{name} has no tuned lens yet; {fit} fits one") from None
    mark = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    known: tuple[object, TunedLens] | None = open_model.remembered.get(KEY)
    if known is None or known[0] != mark:
        try:
            digest = tuned_lens_file.weights_digest(open_model.folder, overtaken)
            known = mark, tuned_lens_file.load(path, digest, weights.layers, weights.width)
        except UserError as error:
            raise UserError(f"{error}; {fit} --force fits a new one") from error
        open_model.remembered[KEY] = known
    return known[1]


@dataclass(frozen=True, slots=True)
class FittedLens:
    """A tuned lens that was written to `path`. logit, tuned: KL(final ‖ lens) of the logit lens and of this one in nats,
    the mean over `held_out` tokens of text that the fit did not see: for the embedding and after each block but the last.
    tokens: how many it was fitted on, in `seconds`."""

    weights: Weights
    path: str
    steps: int
    tokens: int
    seconds: float
    held_out: int
    logit: tuple[float, ...]
    tuned: tuple[float, ...]


def fit_lens(
    open_model: OpenModel,
    texts: Sequence[str],
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 1,
    how: TextFormat = AUTO,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> FittedLens:
    """Fit a tuned lens to the open model and write it beside the weights.

    texts: files, folders, addresses or names of corpora; the last 2 % of each file are held out, to compare the lenses on.
    steps: of about 1,024 tokens each. progress: gets a line a few times a second.

    Raises `UserError` if the texts can't be used, the model has no lens, or the file can't be written; `AlreadyExists` if
    the model has a tuned lens and `force` is not set.
    """
    if steps < 1:
        raise UserError(f"steps is {steps}; give 1 or more")
    path = new_files.check_file(tuned_lens_file.path_of(open_model.folder), force=force)  # before the work
    open_model.intervene(())
    readout, length = readout_of(open_model), min(open_model.window.context, LONGEST)
    places = list(map(place, texts))
    data = corpus.load(places, open_model.tokenizer, HELD_OUT_FRACTION, block_size=length, progress=progress, how=how)
    digest = tuned_lens_file.weights_digest(open_model.folder)
    rows = max(1, TOKENS // length)
    batches, fit, start = (
        Batches(data.train, length, rows, seed),
        LensFit(readout, steps, learning_rate),
        time.monotonic(),
    )
    for step in range(steps):
        losses = fit.step(batches.batch(step)[0].tolist())
        left = (time.monotonic() - start) / (step + 1) * (steps - step - 1)
        progress(
            f"step {step + 1} of {steps} · KL to the prediction, in nats: " + " ".join(f"{one:.3f}" for one in losses)
            + f" · {left:.0f} s left"
        )  # fmt: skip
    seconds = time.monotonic() - start
    held = evenly_spaced(data.validation, length, max(1, HELD_OUT_TOKENS // length))[0].tolist()
    progress("comparing it with the logit lens")
    logit = divergences(readout, TunedLens.identity(readout.layers, readout.width), held)
    tuned = divergences(readout, fit.fitted, held)
    weights, tokens = open_model.weights(), steps * rows * length
    made = {
        "model": weights.name + ("" if weights.step is None else f", step {weights.step}"),
        "corpus": ", ".join(Path(one).name for one in places),
        "steps": str(steps),
        "tokens": str(tokens),
    }
    tuned_lens_file.save(path, fit.fitted, digest, made, force=force)
    return FittedLens(weights, str(path), steps, tokens, seconds, sum(map(len, held)), tuple(logit), tuple(tuned))


def readout_of(open_model: OpenModel) -> Readout:
    """What a fit needs of the open model. Raises `UserError` if it has no lens."""
    size = open_model.tokenizer.size
    if open_model.is_gpt:
        return GPTReadout(open_model.gpt, size)
    return CausalReadout(causal_layout(open_model), size)
