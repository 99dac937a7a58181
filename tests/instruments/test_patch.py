"""Activation patching, against transformers' GPT-2 with forward hooks (eager attention)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.byte_models import save_byte_model
from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import ATTENTION, HEAD, KEY, MLP, RESIDUAL, STEER, ZERO, Intervention, ModelPart
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.patch.question import PatchGrid, PatchQuestion, alignment
from tui_llm.llm.hub import hub
from tui_llm.llm.model import checkpoint, patching
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.patching import Cells, Patching, plan, same_start
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.closed import ClosedTokenizer

NANO = paths.shipped_models_dir() / "nano"
CLEAN, CHANGED = "Tom and Lily went out. Tom gave the ball to", "Tom and Lily went out. Lily gave the ball to"
KINDS = (RESIDUAL, ATTENTION, MLP)


@pytest.fixture(scope="module")
def theirs() -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(NANO, attn_implementation="eager", dtype=torch.float32).eval()


def engine(weights: str = "fp32") -> PipelineEngine:
    made = PipelineEngine("cpu", weights)
    made.open("nano")
    return made


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def module_of(model: Any, kind: str, layer: int) -> Any:
    body = model.transformer
    if kind == RESIDUAL:
        return body.h[layer] if layer < len(body.h) else body.ln_f
    return body.h[layer].attn if kind == ATTENTION else body.h[layer].mlp


@torch.no_grad()
def reference(model: Any, clean: list[int], changed: list[int], kind: str, target: int, rival: int) -> list[list[Any]]:
    """The same grid with hooks on transformers' modules, a whole forward pass for each cell."""
    shift, count = len(clean) - len(changed), len(model.transformer.h) + (kind == RESIDUAL)
    found = []
    for layer in range(count):
        module, kept = module_of(model, kind, layer), []
        keep = (
            module.register_forward_pre_hook(lambda m, args, kept=kept: kept.append(args[0].clone()))
            if kind == RESIDUAL
            else module.register_forward_hook(lambda m, args, out, kept=kept: kept.append(first(out).clone()))
        )
        model(torch.tensor([clean]))
        keep.remove()
        row: list[Any] = []
        for token in range(len(changed)):
            if token + shift < 0:
                row.append(None)
                continue

            def put(value: Tensor, token: int = token, kept: list[Tensor] = kept) -> Tensor:
                value = value.clone()
                value[0, token] = kept[0][0, token + shift]
                return value

            def after(_module: Any, _args: Any, out: Any, put: Any = put) -> Any:
                return (put(out[0]), *out[1:]) if isinstance(out, tuple) else put(out)

            hook = (
                module.register_forward_pre_hook(lambda m, args, put=put: (put(args[0]), *args[1:]))
                if kind == RESIDUAL
                else module.register_forward_hook(after)
            )
            logits = model(torch.tensor([changed])).logits[0, -1]
            hook.remove()
            row.append(float(logits[target] - logits[rival]))
        found.append(row)
    return found


def assert_close(made: list[list[Any]], wanted: list[list[Any]]) -> None:
    for ours, other in zip(made, wanted, strict=True):
        assert [one is None for one in ours] == [one is None for one in other]
        assert [one for one in ours if one is not None] == pytest.approx([one for one in other if one is not None], abs=1e-4)  # fmt: skip


def asked(kind: str = RESIDUAL, clean: str = CLEAN, changed: str = CHANGED, **more: Any) -> PatchQuestion:
    return PatchQuestion(Request(prompt=changed, target=Target(text=" Lily")), clean, kind, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_the_grid_of_nano_is_that_of_hooks_in_transformers(theirs: Any, kind: str) -> None:
    model = engine()
    piece = model.answer(asked(kind))
    clean, changed = list(piece.clean_ids), [token.id for token in piece.tokens]
    wanted = reference(theirs, clean, changed, kind, piece.target.id, piece.rival.id)
    grid = PatchGrid(piece)
    assert grid.complete
    assert_close(grid.effects, wanted)
    if kind == RESIDUAL:  # put in before the first block, the only token that differs is the clean prompt itself
        at = next(at for at in range(len(changed)) if piece.differs(at))
        assert grid.effects[0][at] == pytest.approx(piece.clean, abs=1e-4)
        assert grid.normalised(grid.effects[0][at]) == pytest.approx(1, abs=1e-4)
        assert grid.effects[-1][-1] == pytest.approx(piece.clean, abs=1e-4)
        assert grid.normalised(piece.changed) == 0


@pytest.mark.parametrize(
    ("layers", "heads", "width", "clean", "changed"),
    [(1, 1, 16, 5, 5), (3, 4, 32, 9, 9), (2, 2, 24, 4, 11), (2, 3, 12, 12, 3), (2, 2, 16, 1, 1)],
)
def test_random_models_of_several_shapes(layers: int, heads: int, width: int, clean: int, changed: int) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(layers * 100 + width)
    config = GPT2Config(
        vocab_size=50, n_positions=16, n_embd=width, n_layer=layers, n_head=heads, initializer_range=0.3
    )
    config._attn_implementation = "eager"
    theirs = GPT2LMHeadModel(config).eval()
    ours = of_transformers(theirs, layers, heads, width)
    one, two = torch.randint(50, (clean,)).tolist(), torch.randint(50, (changed,)).tolist()
    two[0] = (one[0] + 1) % 50
    for kind in KINDS:
        shared = Patching(ours, one, two, kind, (3, 7))
        cost = 12 * width**2
        batches, unchanged = plan(kind, layers, changed, clean - changed, same_start(one, two), cost)
        effects: list[list[Any]] = [[None] * changed for _ in range(patching.rows(kind, layers))]
        for batch in batches:
            for token, effect in zip(batch.tokens, shared.effects(batch), strict=True):
                effects[batch.layer][token] = effect
        for layer, token in unchanged:
            effects[layer][token] = shared.changed
        assert_close(effects, reference(theirs, one, two, kind, 3, 7))


def of_transformers(model: Any, layers: int, heads: int, width: int) -> GPT:
    made = GPT(GPTConfig(vocabulary=50, context=16, layers=layers, heads=heads, width=width)).eval()
    body = model.transformer
    with torch.no_grad():
        made.tokens.weight.copy_(body.wte.weight)
        made.positions.weight.copy_(body.wpe.weight)
        for ours, block in zip(made.blocks, body.h, strict=True):
            for here, there in (
                (ours.attention.qkv, block.attn.c_attn), (ours.attention.out, block.attn.c_proj),
                (ours.mlp.up, block.mlp.c_fc), (ours.mlp.down, block.mlp.c_proj),
            ):  # fmt: skip
                here.weight.copy_(there.weight.T)
                here.bias.copy_(there.bias)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_each_cell_is_that_of_the_intervention_that_enter_switches_on(kind: str) -> None:
    model = engine()
    piece = model.answer(asked(kind))
    grid = PatchGrid(piece)
    for layer, token in [(1, 4), (2, len(piece.tokens) - 1), (3, 7)]:
        on = dataclasses.replace(asked().request, interventions=(piece.patch(layer, token),))
        model.intervene(on.interventions)
        logits = model.logits(on)
        made = float(logits[piece.target.id]) - float(logits[piece.rival.id])
        assert grid.effects[layer][token] == pytest.approx(made, abs=1e-4)


def test_with_a_head_off_each_cell_is_of_the_changed_model() -> None:
    model = engine()
    off = (Intervention(ModelPart(HEAD, 1, 2), ZERO),)
    question = asked(MLP, "Tom saw a cat", "Tom saw a dog")
    question = dataclasses.replace(question, request=dataclasses.replace(question.request, interventions=off))
    piece = model.answer(question)
    grid = PatchGrid(piece)
    cell = (2, 3)
    model.intervene((*off, piece.patch(*cell)))
    logits = model.logits(question.request)
    assert grid.effects[2][3] == pytest.approx(float(logits[piece.target.id]) - float(logits[piece.rival.id]), abs=1e-5)
    assert piece.changed != pytest.approx(model.answer(asked(MLP, "Tom saw a cat", "Tom saw a dog")).changed, abs=1e-3)


def test_one_by_one_and_together_are_the_same() -> None:
    together = PatchGrid(engine().answer(asked(ATTENTION)))
    model, question = engine(), asked(ATTENTION)
    nothing = Intervention(ModelPart(RESIDUAL, 0), STEER, (1,), against=(2,), coefficient=0.0)  # a pass for each cell
    request = dataclasses.replace(question.request, interventions=(nothing,))
    assert_close(PatchGrid(model.answer(dataclasses.replace(question, request=request))).effects, together.effects)


def test_pieces_make_the_whole_and_can_be_interrupted() -> None:
    model, stops = engine(), iter([False, False, False, True])
    whole = PatchGrid(model.answer(asked()))
    model = engine()
    with pytest.raises(Overtaken):
        model.answer(asked(), lambda: next(stops, True))
    grid = PatchGrid(model.answer(asked(seconds=0.0)))
    pieces = 1
    while not grid.complete:
        before = grid.piece.done
        grid.take(model.answer(asked(known=before, seconds=0.0)))
        assert grid.piece.done == before + 1
        pieces += 1
    assert_close(grid.effects, whole.effects)
    assert pieces > 1
    model.release()  # the screen's cache is gone: the rest is computed again
    assert model.answer(asked(known=grid.piece.done)).cells == ()


def test_prompts_of_different_length_are_aligned_from_the_end(theirs: Any) -> None:
    clean, changed = "Lily went out. Tom gave the ball to", CHANGED
    piece = engine().answer(asked(MLP, clean, changed))
    grid = PatchGrid(piece)
    assert piece.shift == len(piece.clean_ids) - len(piece.tokens) < 0
    assert all(row[: -piece.shift] == [None] * -piece.shift for row in grid.effects)
    wanted = reference(theirs, list(piece.clean_ids), [one.id for one in piece.tokens], MLP, piece.target.id, piece.rival.id)  # fmt: skip
    assert_close(grid.effects, wanted)
    (said,) = alignment(piece)
    assert "aligned from the end" in said and f"the first {-piece.shift}" in said


def test_only_the_last_tokens_of_a_text_longer_than_the_context() -> None:
    model = engine()
    long = "Lily had a dog. " * 80
    piece = model.answer(asked(MLP, long + "Tom saw", long + "Tom ran", seconds=0.0))
    assert len(piece.tokens) == len(piece.clean_ids) == 256 and min(piece.left_out) > 0
    assert "the model's context is 256 tokens" in alignment(piece)[0]
    cell = piece.cells[0]
    patch = piece.patch(cell.layer, cell.token)
    assert patch.at == cell.token + piece.left_out[1]


def test_the_target_is_the_clean_prompts_likeliest_and_the_rival_the_changed_ones() -> None:
    model = engine()
    piece = model.answer(PatchQuestion(Request(prompt=CHANGED, target=Target(likeliest=True)), CLEAN))
    after = [model.logits(Request(prompt=text)) for text in (CLEAN, CHANGED)]
    target = int(after[0].argmax())
    after[1][target] = -1e9
    assert (piece.target.id, piece.rival.id) == (target, int(after[1].argmax()))


@pytest.mark.parametrize("weights", ["half", "int8"])
def test_reduced_weights_give_the_grid_of_that_model(weights: str) -> None:
    model = engine(weights)
    piece = model.answer(asked(MLP))
    logits = model.logits(Request(prompt=CHANGED))
    assert piece.changed == pytest.approx(float(logits[piece.target.id]) - float(logits[piece.rival.id]), abs=1e-4)
    at = (2, len(piece.tokens) - 1)
    model.intervene((piece.patch(*at),))
    made = model.logits(Request(prompt=CHANGED))
    difference = float(made[piece.target.id]) - float(made[piece.rival.id])
    assert PatchGrid(piece).effects[at[0]][at[1]] == pytest.approx(difference, abs=5e-3)


def test_one_token_each() -> None:
    grid = PatchGrid(engine().answer(asked(RESIDUAL, " cat", " dog")))
    assert len(grid.piece.tokens) == 1
    assert [row[0] for row in grid.effects] == pytest.approx([grid.piece.clean] * 5, abs=1e-4)
    assert grid.largest() is not None


@pytest.mark.parametrize(
    ("question", "line"),
    [
        (asked(clean=""), "clean prompt is empty"),
        (asked(clean=CHANGED), "same tokens"),
        (asked(changed=""), "type some text first"),
        (asked("logits"), "can't be patched"),
        (asked(rival=Target(id=99999)), "there is no token 99999"),
        (PatchQuestion(Request(prompt="a", target=Target(text="")), "b"), "target is empty"),
        (PatchQuestion(Request(prompt="a b", position=0), "b"), "first token has no prediction"),
    ],
)
def test_refused_in_one_line(question: PatchQuestion, line: str) -> None:
    with pytest.raises(UserError, match=line):
        engine().answer(question)


def test_target_and_rival_must_differ() -> None:
    model = engine()
    target = model.answer(asked()).target.id
    with pytest.raises(UserError, match="another rival"):
        model.answer(asked(rival=Target(id=target)))


def test_batches_are_bounded_and_cover_each_cell_once() -> None:
    batches, unchanged = plan(RESIDUAL, 3, 20, -2, 0, 1_000_000)
    cells = [(one.layer, token) for one in batches for token in one.tokens] + unchanged
    assert sorted(cells) == [(layer, token) for layer in range(4) for token in range(2, 20)]
    assert batches[0] == Cells(3, (19,))
    alone, _ = plan(RESIDUAL, 3, 20, 0, 0)
    assert all(len(one.tokens) == 1 for one in alone)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["patch", CLEAN, CHANGED, "--target", " Lily", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    grid = PatchGrid(engine().answer(asked()))
    assert_close(made["effects"], grid.effects)
    assert made["layers"] == [0, 1, 2, 3, 4]
    assert len(made["tokens"]) == len(made["effects"][0]) and made["rival"]["id"] == grid.piece.rival.id
    assert main(["patch", CLEAN, CHANGED, "--part", "mlp", "--target", " Lily"]) == 0
    text = capsys.readouterr().out
    assert "·Lily    ·Tom" in text and "output of a block's MLP" in text
    for words in ((CLEAN, CLEAN), (CLEAN, ""), ("", CHANGED), (CLEAN, CHANGED, "--target", "")):
        assert main(["patch", *words]) == 2
        printed, said = capsys.readouterr()
        assert not printed and said.count("\n") == 1


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> PipelineEngine:
    """A model whose context is 16 bytes."""
    made = PipelineEngine("cpu")
    shape = GPTConfig(vocabulary=257, context=16, layers=2, heads=2, width=16)
    made.open(str(save_byte_model(tmp_path_factory.mktemp("models") / "short", shape, padding=10.0)))
    return made


@pytest.mark.parametrize("number", [None, 3, 9])
def test_inside_a_text_longer_than_the_context_it_is_the_window_of_the_panes(
    short: PipelineEngine, number: int | None
) -> None:
    """`number`: a token that is switched off, by its number in the text; the first 4 of 20 are not seen."""
    off = () if number is None else (Intervention(ModelPart(KEY, number)),)
    request = Request(prompt="The cat and the dog!", position=14, interventions=off, top=300)
    piece = short.answer(PatchQuestion(request, "The cat and the cat", MLP))
    assert len(piece.tokens) == 10 and piece.left_out[1] == 4
    shown = short.read(request).distribution
    assert shown is not None
    logits = {row.id: row.logit for row in shown.candidates}
    assert piece.changed == pytest.approx(logits[piece.target.id] - logits[piece.rival.id], abs=1e-4)
    on = dataclasses.replace(request, interventions=(*off, piece.patch(1, 9)))
    shown = short.read(on).distribution
    assert shown is not None
    logits = {row.id: row.logit for row in shown.candidates}
    made = logits[piece.target.id] - logits[piece.rival.id]
    assert PatchGrid(piece).effects[1][9] == pytest.approx(made, abs=1e-4)


def test_a_vocabulary_of_one_token_has_no_rival(tmp_path: Path) -> None:
    folder, vocabulary = tmp_path / "one", ClosedTokenizer("one", "char", ["a"])
    checkpoint.save(GPT(GPTConfig(vocabulary.size, context=8, layers=1, heads=1, width=8)), folder, end_of_text=None)
    hub.save_vocabulary(vocabulary, folder)
    model = PipelineEngine("cpu")
    model.open(str(folder))
    with pytest.raises(UserError, match="same token"):
        model.answer(PatchQuestion(Request(prompt="a"), "aa"))
