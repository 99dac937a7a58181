"""The backward pass, against torch.autograd on transformers' GPT-2 in float64, and against a training step."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.instruments.inside_models import NAMES, TEXT, Models, models
from tests.llm.test_interventions import edited
from tests.training.run_helpers import TINY, words
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import HEAD, KEY, LAYER, MEAN, PATCH, RESIDUAL, TOKENS, Intervention, ModelPart
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.backward import question as kinds
from tui_llm.instruments.backward.question import Backward, BackwardQuestion
from tui_llm.llm.data import corpus
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens import vocabulary_folder
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.run.settings import from_fields
from tui_llm.training.worker import loop
from tui_llm.training.worker.loop import Trainer

ASKED = Request(prompt=TEXT, target=Target(text=" little girl"))


@pytest.fixture(scope="module", params=NAMES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return models(request.param, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def nano() -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open("nano")
    return made


def norm(*gradients: Tensor) -> float:
    return math.sqrt(sum(float(one.square().sum()) for one in gradients))


@pytest.mark.parametrize("whole", [False, True])
def test_each_norm_is_that_of_autograd(both: Models, whole: bool) -> None:
    found: Backward = both.engine.answer(BackwardQuestion(ASKED, whole))
    ids, theirs = both.ids(), both.theirs
    wanted = ids[1:] if whole else both.engine.target_ids(Target(text=" little girl"), ASKED)
    row = ids[:-1] if whole else [*ids, *wanted[:-1]]
    theirs.zero_grad()
    made: list[Tensor] = []
    handle = theirs.transformer.wte.register_forward_hook(lambda _module, _args, output: made.append(output))
    logits = theirs(torch.tensor([row])).logits[0, -len(wanted) :, : both.engine.tokenizer.size]
    handle.remove()
    embedded = made[0]
    embedded.retain_grad()
    losses = F.cross_entropy(logits, torch.tensor(wanted), reduction="none")
    losses.mean().backward()
    assert embedded.grad is not None
    assert found.loss == pytest.approx(float(losses.mean().detach()), abs=1e-4)
    assert found.losses == pytest.approx(losses.tolist(), abs=1e-4)
    assert [token.id for token in found.targets] == wanted and [one.token.id for one in found.tokens] == row
    products = (embedded * embedded.grad).sum(-1)[0].detach()
    for at, one in enumerate(found.tokens):
        assert one.number == at
        assert one.norm == pytest.approx(float(embedded.grad[0, at].norm()), abs=1e-4)
        assert one.product == pytest.approx(float(products[at]), abs=1e-4)
    total = norm(*(one.grad for one in theirs.parameters()))
    assert found.grad_norm == pytest.approx(total, rel=1e-4)
    for layer, block in enumerate(theirs.transformer.h):
        q, k, v = block.attn.c_attn.weight.grad.chunk(3, dim=1)
        wanted_norms = {
            kinds.QUERY: norm(q),
            kinds.KEY: norm(k),
            kinds.VALUE: norm(v),
            kinds.OUTPUT: norm(block.attn.c_proj.weight.grad),
            kinds.UP: norm(block.mlp.c_fc.weight.grad),
            kinds.DOWN: norm(block.mlp.c_proj.weight.grad),
            kinds.BIASES: norm(
                *(one.bias.grad for one in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj))
            ),
            kinds.NORMS: norm(*(one.grad for ln in (block.ln_1, block.ln_2) for one in (ln.weight, ln.bias))),
        }
        assert {kind: found.cell(layer, kind).norm for kind in kinds.BLOCK_KINDS} == pytest.approx(
            wanted_norms, abs=1e-4
        )
    assert found.cell(-1, kinds.EMBEDDING).norm == pytest.approx(norm(theirs.transformer.wte.weight.grad), rel=1e-4)
    assert found.tied == (theirs.lm_head.weight is theirs.transformer.wte.weight)
    assert (kinds.HEAD in {one.kind for one in found.norms}) != found.tied
    assert sum(one.norm**2 for one in found.norms) == pytest.approx(found.grad_norm**2)
    assert sum(one.numbers for one in found.norms) == both.engine.weights().parameters


def test_grad_norm_is_that_of_a_training_step_on_this_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "trains_in_bfloat16", lambda _: False)
    settings, text = from_fields({"batch_size": 1}, TINY), tmp_path / "text.txt"
    text.write_text(words(2000))
    data = corpus.load([text], byte_level(), settings.validation_fraction, block_size=settings.block_size)
    torch.manual_seed(4)
    model = GPT(GPTConfig(257, settings.block_size, layers=2, heads=2, width=16))
    checkpoint.save(model, tmp_path / "first", end_of_text=byte_level().end_of_text)
    vocabulary_folder.save_folder(byte_level(), tmp_path / "first")
    trainer = Trainer(model, data, settings, torch.device("cpu"))
    x, y = trainer.batches.batch(0)
    step = next(trainer.steps())
    engine = PipelineEngine("cpu")
    engine.open(str(tmp_path / "first"))
    row = Request(continuation=(*x[0].tolist(), int(y[0, -1])))
    found: Backward = engine.answer(BackwardQuestion(row, whole=True))
    assert len(found.tokens) == settings.block_size
    assert found.loss == pytest.approx(step.loss, rel=1e-5)
    assert found.grad_norm == pytest.approx(step.grad_norm, rel=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        Intervention(ModelPart(HEAD, 3, 3)),
        Intervention(ModelPart(HEAD, 1, 1), MEAN, (5, 6, 7)),
        Intervention(ModelPart(LAYER, 1)),
        Intervention(ModelPart(RESIDUAL, 2), PATCH, (5, 6, 7)),
        Intervention(ModelPart(KEY, 2)),
        Intervention(ModelPart(TOKENS)),
    ],
    ids=lambda one: one.name,
)
def test_a_changed_model_has_the_gradient_of_its_own_loss(nano: PipelineEngine, change: Intervention) -> None:
    changed = Request(prompt=TEXT, target=Target(text=" little"), interventions=(change,))
    found: Backward = nano.answer(BackwardQuestion(changed))
    reading = nano.read(changed)
    assert reading.loss is not None
    assert found.loss == pytest.approx(reading.loss.tokens[0].loss.nats, abs=1e-4)
    if change.part.kind == HEAD and change.how == "zero":
        assert found.grad_norm > 0
    if change.part.kind == LAYER:
        assert found.cell(1, kinds.UP).norm == found.cell(1, kinds.QUERY).norm == 0 < found.cell(2, kinds.UP).norm
    if change.part.kind == TOKENS:
        assert all(one.norm == 0 for one in found.tokens)
    plain: Backward = nano.answer(BackwardQuestion(Request(prompt=TEXT, target=Target(text=" little"))))
    assert plain.loss != found.loss


@pytest.mark.parametrize("part", [ModelPart(HEAD, 1, 0), ModelPart(KEY, 2)], ids=lambda one: one.name)
def test_the_gradient_of_a_changed_model_is_that_of_autograd(both: Models, part: ModelPart) -> None:
    """A head that is set to 0, as by a hook in transformers; a token that no later one attends to, as by a mask."""
    asked = Request(prompt=TEXT, target=Target(text=" little girl"), interventions=(Intervention(part),))
    found: Backward = both.engine.answer(BackwardQuestion(asked))
    wanted, theirs = both.engine.target_ids(Target(text=" little girl"), ASKED), both.theirs
    row = [*both.ids(), *wanted[:-1]]
    mask = torch.full((len(row), len(row)), -math.inf, dtype=torch.float64).triu(1)
    if part.kind == KEY:
        mask[part.layer + 1 :, part.layer] = -math.inf
    theirs.zero_grad()
    with edited(theirs, part, torch.zeros_like) if part.kind == HEAD else contextlib.nullcontext():
        logits = theirs(torch.tensor([row]), attention_mask=mask[None, None]).logits
    logits = logits[0, -len(wanted) :, : both.engine.tokenizer.size]
    F.cross_entropy(logits, torch.tensor(wanted)).backward()
    assert found.grad_norm == pytest.approx(norm(*(one.grad for one in theirs.parameters())), rel=1e-4)
    for layer, block in enumerate(theirs.transformer.h):
        for kind, gradient in zip(
            (kinds.QUERY, kinds.KEY, kinds.VALUE), block.attn.c_attn.weight.grad.chunk(3, dim=1), strict=True
        ):
            assert found.cell(layer, kind).norm == pytest.approx(norm(gradient), rel=1e-3, abs=1e-5)
    plain: Backward = both.engine.answer(BackwardQuestion(ASKED))
    assert plain.grad_norm != pytest.approx(found.grad_norm, rel=1e-3), "the change changes the gradient"


def test_the_model_is_as_before(nano: PipelineEngine) -> None:
    before = {name: one.clone() for name, one in nano.gpt.named_parameters()}
    nano.answer(BackwardQuestion(ASKED))
    for name, one in nano.gpt.named_parameters():
        assert one.grad is None and torch.equal(one, before[name])
    assert not nano.gpt.tokens._forward_hooks


def test_a_text_longer_than_the_context(nano: PipelineEngine) -> None:
    context = nano.gpt.config.context
    long = Request(prompt=" cat" * (context + 10), target=Target(text=" sat"))
    found: Backward = nano.answer(BackwardQuestion(long))
    assert len(found.tokens) == context and found.tokens[0].number == 10
    whole: Backward = nano.answer(BackwardQuestion(long, True))
    assert len(whole.tokens) == len(whole.targets) == context and whole.tokens[0].number == 9


@pytest.mark.parametrize("weights", ["half", "int8"])
def test_reduced_weights_are_refused_in_one_line(weights: str) -> None:
    engine = PipelineEngine("cpu", weights)
    engine.open("nano")
    with pytest.raises(UserError, match=f"{weights} weights have no gradient.*--weights fp32"):
        engine.answer(BackwardQuestion(ASKED))


def test_bad_input(nano: PipelineEngine) -> None:
    for question, line in (
        (BackwardQuestion(Request(target=Target(text="x"))), "nothing is predicted before the first token"),
        (BackwardQuestion(Request(prompt=TEXT)), "the target is empty"),
        (BackwardQuestion(Request(prompt="Once"), True), "one token makes no pair"),
        (BackwardQuestion(Request(prompt=TEXT, target=Target(text=" cat" * 400))), "the model's context is"),
    ):
        with pytest.raises(UserError, match=line):
            nano.answer(question)
