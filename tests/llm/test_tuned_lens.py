"""The tuned lens: its closed form, its fit against torch's autograd through transformers' GPT-2, and its file."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributions import Categorical, kl_divergence

from tests.instruments.inside_models import TEXT, models
from tui_llm.common import paths
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.instruments.guess.passages import passages
from tui_llm.instruments.lens.question import Lens, LensGrid, LensGridQuestion, LensQuestion
from tui_llm.instruments.lens.tuned import readout_of, tuned_lens
from tui_llm.llm.learn.fit_lens import LensFit, divergences
from tui_llm.llm.model import tuned_lens_file
from tui_llm.llm.model.tuned_lens import TunedLens

NANO = paths.shipped_models_dir() / "nano"


@pytest.fixture(scope="module")
def nano() -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open("nano")
    return made


def random_lens(layers: int, width: int, dtype: torch.dtype = torch.float32) -> TunedLens:
    torch.manual_seed(4)
    return TunedLens(torch.randn(layers, width, width, dtype=dtype) * 0.1, torch.randn(layers, width, dtype=dtype))


def put(folder: Path, lens: TunedLens, digest: str | None = None) -> Path:
    path = tuned_lens_file.path_of(folder)
    digest = tuned_lens_file.weights_digest(folder) if digest is None else digest
    tuned_lens_file.save(path, lens, digest, {"model": folder.name}, force=True)
    return path


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of nano's folder."""
    return Path(shutil.copytree(NANO, tmp_path / "copy"))


def opened(folder: Path) -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open(str(folder))
    return made


def test_translators_of_zero_are_the_logit_lens_bit_for_bit(copied: Path) -> None:
    put(copied, TunedLens.identity(4, 256))
    engine, request = opened(copied), Request(prompt=TEXT)
    logit, tuned = (engine.answer(LensQuestion(request, at, tuned=on)) for at in (3,) for on in (False, True))
    assert (logit.tuned, tuned.tuned) == (False, True) and logit.rows == tuned.rows
    logit_grid, tuned_grid = (engine.answer(LensGridQuestion(request, tuned=on)) for on in (False, True))
    assert (logit_grid.tuned, tuned_grid.tuned) == (False, True) and logit_grid.rows == tuned_grid.rows


@pytest.mark.parametrize("name", ["nano", "untied"])
def test_each_row_and_the_gradient_of_its_loss_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    both = models(name, tmp_path)
    theirs, ids, size = both.theirs, both.ids(), both.engine.tokenizer.size
    body, kept = theirs.transformer, both.run(ids)
    streams = [*(kept[f"h.{layer}"][0] for layer in range(len(body.h))), kept["ln_f"][0]]  # float64
    lens = random_lens(len(body.h), streams[0].shape[-1])
    weight, bias = (one.double().requires_grad_() for one in (lens.weight, lens.bias))

    def predicted(row: int) -> Any:
        stream = streams[row] if row == len(body.h) else streams[row] + streams[row] @ weight[row].T + bias[row]
        return Categorical(logits=theirs.lm_head(body.ln_f(stream))[:, :size])

    wanted = torch.stack([kl_divergence(predicted(len(body.h)), predicted(row)).mean() for row in range(len(body.h))])
    gradients = torch.autograd.grad(wanted.sum(), (weight, bias))

    ours = TunedLens(lens.weight.requires_grad_(), lens.bias.requires_grad_())
    readout = readout_of(both.engine)
    # Twice the same text: the mean is the same, and so is the gradient.
    assert divergences(readout, ours, [ids, ids], backward=True) == pytest.approx(wanted.tolist(), rel=1e-4)
    for made, true in zip((ours.weight.grad, ours.bias.grad), gradients, strict=True):
        assert made is not None
        torch.testing.assert_close(made.double(), true, rtol=1e-3, atol=1e-4 * float(true.abs().max()))

    for row in range(len(body.h) + 1):  # the prediction itself
        logits = readout.logits(ours.translated(row, readout.streams(ids)[row]))
        assert logits.shape == (len(ids), size)
        torch.testing.assert_close(logits.log_softmax(-1).double(), predicted(row).logits, rtol=0, atol=1e-3)


def test_a_fit_starts_at_the_logit_lens_and_lowers_each_layers_divergence(nano: PipelineEngine) -> None:
    readout = readout_of(nano)
    texts = [nano.tokenizer.encode(passage.text)[:64] for passage in passages()[:3]]
    fit = LensFit(readout, 4, 1e-3)
    losses = [fit.step(texts) for _ in range(4)]
    assert losses[0] == divergences(readout, TunedLens.identity(4, 256), texts)
    assert all(after < before for before, after in zip(losses[0], losses[-1], strict=True))
    assert fit.fitted.weight.dtype == torch.float32 and not fit.fitted.weight.requires_grad


def test_the_shipped_lens_is_nearer_to_the_prediction_at_every_layer(nano: PipelineEngine) -> None:
    """On paragraphs that neither nano nor its lens was fitted to."""
    readout, lens = readout_of(nano), tuned_lens(nano)
    texts = [nano.tokenizer.encode(passage.text) for passage in passages()[::4]]
    logit, tuned = (divergences(readout, one, texts) for one in (TunedLens.identity(4, 256), lens))
    assert all(after < 0.8 * before for before, after in zip(logit, tuned, strict=True)), (logit, tuned)
    assert tuned_lens_file.path_of(NANO).stat().st_size < 1 << 20


def test_the_last_row_stays_the_prediction(nano: PipelineEngine) -> None:
    request = Request(prompt=TEXT)
    logit, tuned = (nano.answer(LensQuestion(request, tuned=on)) for on in (False, True))
    assert logit.rows[-1] == tuned.rows[-1] and tuned.rows[-1].divergence == 0
    assert all(a != b for a, b in zip(logit.rows[:-1], tuned.rows[:-1], strict=True))
    grids: list[LensGrid] = [nano.answer(LensGridQuestion(request, tuned=on)) for on in (False, True)]
    assert grids[0].rows[-1] == grids[1].rows[-1] and grids[0].rows[0] != grids[1].rows[0]
    reading = nano.read(request)
    assert reading.distribution is not None
    assert grids[1].rows[-1][-1].logit == reading.distribution.candidates[0].logit
    for row, cells in zip(tuned.rows, grids[1].rows, strict=True):  # both views show the same lens
        assert cells[-1].entropy == pytest.approx(row.entropy, abs=1e-4)


# ── the file ──


def test_the_file_names_the_weights_by_their_hash(copied: Path) -> None:
    path = put(copied, random_lens(4, 256))
    digest = hashlib.sha256((copied / "model.safetensors").read_bytes()).hexdigest()
    assert tuned_lens_file.weights_digest(copied) == digest
    lens = tuned_lens_file.load(path, digest, 4, 256)
    torch.testing.assert_close(lens.weight, load_file(path)["weight"].float(), rtol=0, atol=0)
    torch.testing.assert_close(lens.weight, random_lens(4, 256).weight, rtol=1e-3, atol=1e-6)  # float16
    first = path.read_bytes()
    assert put(copied, random_lens(4, 256)).read_bytes() == first


def test_a_new_file_is_read_at_the_next_question(copied: Path) -> None:
    engine, question = opened(copied), LensQuestion(Request(prompt=TEXT), tuned=True)
    shipped: Lens = engine.answer(question)
    put(copied, random_lens(4, 256))
    assert engine.answer(question).rows[1] != shipped.rows[1]
    tuned_lens_file.path_of(copied).unlink()
    with pytest.raises(UserError, match="copy has no tuned lens yet; tui-llm fit-lens TEXT … --model copy fits one"):
        engine.answer(question)
    assert engine.answer(LensQuestion(Request(prompt=TEXT))).rows


def test_the_lens_of_other_weights_and_damaged_files_are_refused_in_a_line(copied: Path) -> None:
    engine, question = opened(copied), LensQuestion(Request(prompt=TEXT), tuned=True)
    path, lens = tuned_lens_file.path_of(copied), random_lens(4, 256)

    def refused(line: str) -> None:
        with pytest.raises(UserError, match=line) as raised:
            engine.answer(question)
        assert "\n" not in str(raised.value) and str(raised.value).endswith("--force fits a new one")

    put(copied, lens, "0" * 64)
    refused(r"was fitted to other weights \(SHA-256 000000000000, these have [0-9a-f]{12}\)")
    put(copied, random_lens(3, 256))
    refused("is damaged: it should have")
    lens.weight[1, 2, 3] = float("nan")
    metadata = {"format": tuned_lens_file.FORMAT, "weights_sha256": tuned_lens_file.weights_digest(copied)}
    save_file({"weight": lens.weight, "bias": lens.bias}, path, metadata)
    refused("NaN or infinite")
    save_file({"direction": torch.zeros(3)}, path)
    refused("is not a tuned lens of tui-llm")
    put(copied, random_lens(4, 256))
    path.write_bytes(path.read_bytes()[:-9])
    refused("get it again")
    path.write_bytes(b"")
    refused("empty or cut short")
    path.unlink()
    path.mkdir()
    refused("is a folder")


def test_numbers_that_float16_does_not_have_are_not_saved(copied: Path) -> None:
    before = tuned_lens_file.path_of(copied).read_bytes()
    with pytest.raises(UserError, match="float16"):
        put(copied, TunedLens(torch.full((4, 256, 256), 1e6), torch.zeros(4, 256)))
    assert tuned_lens_file.path_of(copied).read_bytes() == before


def test_hashing_stops_when_the_question_is_superseded(copied: Path) -> None:
    with pytest.raises(Overtaken):
        tuned_lens_file.weights_digest(copied, lambda: True)
