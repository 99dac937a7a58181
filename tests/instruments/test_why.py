"""Direct logit attribution, against transformers' GPT-2 with hooks in float64, and as the command prints it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import (
    ATTENTION,
    ATTENTION_BIAS,
    FINAL_BIAS,
    HEAD,
    LAYER,
    MEAN,
    MLP,
    PATCH,
    POSITIONS,
    REMAINDER,
    RESIDUAL,
    STEER,
    TOKENS,
    Intervention,
    ModelPart,
)
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.why.question import Neurons, NeuronsQuestion, Why, WhyQuestion
from tui_llm.instruments.why.sums import FORMULA
from tui_llm.tui.glossary import TERMS

NANO = paths.shipped_models_dir() / "nano"
TEXT = "Once upon a time, there was a little girl named"


@pytest.fixture(scope="module")
def theirs() -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(NANO, attn_implementation="eager", dtype=torch.float64).eval()


def engine(weights: str = "fp32") -> PipelineEngine:
    made = PipelineEngine("cpu", weights)
    made.open("nano")
    return made


@torch.no_grad()
def attribution(model: Any, ids: list[int], tokens: list[int]) -> dict[str, list[float]]:
    """The same decomposition, from what transformers' modules get and return; with the final LayerNorm replaced by the
    map that it is at a frozen σ, applied to each part alone."""
    body, kept = model.transformer, {}
    handles = [
        module.register_forward_hook(lambda m, args, out, name=name: kept.update({name: (args, out)}))
        for name, module in body.named_modules()
        if name and name.split(".")[-1] in ("wte", "wpe", "c_proj", "mlp", "ln_f")
    ]
    model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    stream, norm = kept["ln_f"][0][0][0, -1], body.ln_f
    sigma = (stream.var(unbiased=False) + norm.eps).sqrt()
    rows = model.lm_head.weight[tokens]

    def logits(vector: Tensor) -> list[float]:
        return (rows @ (norm.weight * (vector - vector.mean()) / sigma)).tolist()

    found = {
        "token embedding": logits(kept["wte"][1][0, -1]),
        "position embedding": logits(kept["wpe"][1].reshape(len(ids), -1)[-1]),
        "final norm bias": (rows @ norm.bias).tolist(),
    }
    for layer, block in enumerate(body.h):
        values, projection = kept[f"h.{layer}.attn.c_proj"][0][0][0, -1], block.attn.c_proj
        size = len(values) // model.config.n_head
        for head in range(model.config.n_head):
            columns = slice(head * size, (head + 1) * size)
            found[f"head {layer}.{head}"] = logits(values[columns] @ projection.weight[columns])
        found[f"attention bias {layer}"] = logits(projection.bias)
        found[f"MLP {layer}"] = logits(kept[f"h.{layer}.mlp"][1][0, -1])
    return found


def test_each_part_is_that_of_transformers_and_they_add_up(theirs: Any) -> None:
    found: Why = engine().answer(WhyQuestion(Request(prompt=TEXT, target=Target(text=" Lily"))))
    ids = [token.id for token in found.place.tokens]
    wanted = attribution(theirs, ids, [found.target.id, found.rival.id])
    assert {one.part.name for one in found.parts} == wanted.keys()
    for one in found.parts:
        assert [one.value, one.rival] == pytest.approx(wanted[one.part.name], abs=1e-4), one.part.name
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0, -1]
    assert found.logit == pytest.approx(float(logits[found.target.id]), abs=1e-4)
    assert found.computed == pytest.approx(found.logit, abs=1e-4)
    assert found.rival_logit == pytest.approx(found.computed_rival, abs=1e-4)
    best = [id for id in logits.topk(2).indices.tolist() if id != found.target.id]
    assert found.rival.id == best[0]


@pytest.mark.parametrize("weights", ["half", "int8"])
def test_with_reduced_weights_the_parts_add_up_to_that_models_logit(weights: str) -> None:
    found: Why = engine(weights).answer(WhyQuestion(Request(prompt=TEXT)))
    assert found.logit == pytest.approx(found.computed, abs=5e-3)
    assert found.chosen == "likeliest"


def test_a_head_that_is_off_adds_nothing() -> None:
    model = engine()
    off = Request(prompt=TEXT, interventions=(Intervention(ModelPart(HEAD, 3, 2)), Intervention(ModelPart(MLP, 1))))
    found: Why = model.answer(WhyQuestion(off))
    values = {one.part: one.value for one in found.parts}
    assert values[ModelPart(HEAD, 3, 2)] == values[ModelPart(MLP, 1)] == 0
    assert found.logit == pytest.approx(found.computed, abs=1e-4)
    assert all(one.value for one in model.answer(WhyQuestion(Request(prompt=TEXT))).parts)


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_neurons_add_up_to_their_mlp(theirs: Any, weights: str) -> None:
    model = engine(weights)
    found: Why = model.answer(WhyQuestion(Request(prompt=TEXT)))
    pair, number = (found.target.id, found.rival.id), found.place.number
    neurons: Neurons = model.answer(NeuronsQuestion(Request(prompt=TEXT), number, 2, *pair, count=30))
    mlp = next(one for one in found.parts if one.part == ModelPart(MLP, 2))
    total = sum(one.value for one in neurons.neurons) + neurons.rest[0] + neurons.bias[0]
    assert total == pytest.approx(mlp.value, abs=1e-4 if weights == "fp32" else 5e-2)
    if weights != "fp32":
        return
    kept: list[Tensor] = []
    block = theirs.transformer.h[2]
    handle = block.mlp.c_proj.register_forward_pre_hook(lambda m, args: kept.append(args[0][0, -1]))
    with torch.no_grad():
        theirs(torch.tensor([[token.id for token in found.place.tokens]]))
    handle.remove()
    first, norm = neurons.neurons[0], theirs.transformer.ln_f
    assert first.activation == pytest.approx(float(kept[0][first.number]), abs=1e-4)
    written = (kept[0][first.number] * block.mlp.c_proj.weight[first.number]).detach()
    with torch.no_grad():
        pushed = theirs.lm_head.weight @ (norm.weight * (written - written.mean()) / found.scale)
    assert [first.value, first.rival] == pytest.approx(pushed[list(pair)].tolist(), abs=1e-4)
    assert [token.id for token in first.promoted] == pushed.topk(4).indices.tolist()


INSIDE = {
    ATTENTION: lambda part: part.layer == 2 and part.kind in (HEAD, ATTENTION_BIAS),
    LAYER: lambda part: part.layer == 2 and part.kind != FINAL_BIAS,
    RESIDUAL: lambda part: part.layer < 2 and part.kind != FINAL_BIAS,
    TOKENS: lambda part: part.kind == TOKENS,
    POSITIONS: lambda part: part.kind == POSITIONS,
    MLP: lambda part: part == ModelPart(MLP, 2),
}
"""The parts of the logit whose values are in that of a changed part of this kind, of layer 2."""


def changed_part(kind: str) -> ModelPart:
    return ModelPart(kind) if kind in (TOKENS, POSITIONS) else ModelPart(kind, 2)


def others_value(theirs: Any, part: ModelPart, ids: list[int]) -> Tensor:
    """The part's value (T, C) in transformers' GPT-2, without changes."""
    body = theirs.transformer
    modules = {
        ATTENTION: body.h[2].attn, LAYER: body.h[2], RESIDUAL: body.h[2], TOKENS: body.wte, POSITIONS: body.wpe, MLP: body.h[2].mlp,
    }  # fmt: skip
    kept: list[Tensor] = []

    def keep(_module: Any, args: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        kept.append(args[0] if part.kind == RESIDUAL else output - args[0] if part.kind == LAYER else output)

    handle = modules[part.kind].register_forward_hook(keep)
    with torch.no_grad():
        theirs(torch.tensor([ids]))
    handle.remove()
    return kept[0].reshape(len(ids), -1)


def changed_why(model: PipelineEngine, *changes: Intervention, prompt: str = TEXT) -> dict[ModelPart, float]:
    found: Why = model.answer(WhyQuestion(Request(prompt=prompt, interventions=changes, target=Target(text=" Lily"))))
    assert found.logit == pytest.approx(found.computed, abs=1e-4)
    return {one.part: one.value for one in found.parts}


@pytest.mark.parametrize("kind", INSIDE)
def test_what_is_in_a_part_that_is_off_adds_nothing(kind: str) -> None:
    model = engine()
    plain = changed_why(model)
    off = changed_why(model, Intervention(changed_part(kind)))
    assert off.keys() == plain.keys(), "what is off leaves no rest"
    inside = {part for part in plain if INSIDE[kind](part)}
    assert inside and all(plain.values())
    assert {part for part, value in off.items() if value == 0} == inside


@pytest.mark.parametrize("how", [MEAN, PATCH])
@pytest.mark.parametrize("kind", INSIDE)
def test_what_takes_the_place_of_several_parts_is_one_part(theirs: Any, kind: str, how: str) -> None:
    model, part = engine(), changed_part(kind)
    plain = changed_why(model)
    ids = model.ids(Request(prompt=TEXT))
    other = model.ids(Request(prompt="The dog sat on the mat"))
    shift = len(other) - len(ids)
    found: Why = model.answer(
        WhyQuestion(Request(prompt=TEXT, interventions=(Intervention(part, how, tuple(other), shift=shift),)))
    )
    inside = {one for one in plain if INSIDE[kind](one)}
    assert {one.part for one in found.parts} == (plain.keys() - inside) | {part}
    rows = others_value(theirs, part, other)
    wanted = rows.mean(0) if how == MEAN else rows[-1]
    norm = theirs.transformer.ln_f
    with torch.no_grad():
        row = theirs.lm_head.weight[found.target.id]
        made = row @ (norm.weight * (wanted - wanted.mean()) / found.scale)
    assert {one.part: one.value for one in found.parts}[part] == pytest.approx(float(made), abs=1e-4)
    assert found.logit == pytest.approx(found.computed, abs=1e-4)


def test_a_change_of_another_token_is_none_of_this_one() -> None:
    model = engine()
    last = len(model.ids(Request(prompt=TEXT))) - 1
    ids = tuple(model.ids(Request(prompt="The dog")))
    elsewhere = Intervention(ModelPart(LAYER, 1), at=last - 1)
    no_such_token = Intervention(ModelPart(ATTENTION, 2), PATCH, ids, shift=-last - 1)
    assert all(changed_why(model, elsewhere, no_such_token).values())
    assert changed_why(model, Intervention(ModelPart(LAYER, 1), at=last))[ModelPart(MLP, 1)] == 0


def test_what_is_added_to_a_part_has_a_part_of_its_own() -> None:
    model = engine()
    ids, other = (tuple(model.ids(Request(prompt=text))) for text in (TEXT, "The dog"))
    plain = changed_why(model)
    for kind in (ATTENTION, LAYER, RESIDUAL):
        steered = changed_why(model, Intervention(changed_part(kind), STEER, other, ids))
        assert steered.keys() == plain.keys() | {ModelPart(REMAINDER)} and all(steered.values())


def test_both_embeddings_are_off_in_either_order() -> None:
    model = engine()
    changes = (Intervention(ModelPart(TOKENS)), Intervention(ModelPart(POSITIONS)))
    for order in (changes, changes[::-1]):
        found = changed_why(model, *order)
        assert found[ModelPart(TOKENS)] == found[ModelPart(POSITIONS)] == 0


@pytest.mark.parametrize("kind", [MLP, LAYER, RESIDUAL])
def test_the_neurons_of_a_changed_mlp_are_refused(kind: str) -> None:
    model = engine()
    layer, number = 3 if kind == RESIDUAL else 2, len(model.ids(Request(prompt=TEXT))) - 1

    def ask(at: int | None) -> Neurons:
        off = Intervention(ModelPart(kind, layer), at=at)
        return model.answer(NeuronsQuestion(Request(prompt=TEXT, interventions=(off,)), number, 2, 5, 6))

    with pytest.raises(UserError, match=rf"what MLP 2 adds is changed.*{kind} {layer} off"):
        ask(None)
    assert len(ask(number - 1).neurons) == 100, "it is not changed at this token"


def test_within_the_text_the_target_is_its_own_next_token() -> None:
    found: Why = engine().answer(WhyQuestion(Request(prompt=TEXT), 2))
    assert found.chosen == "next" and found.target == found.place.tokens[3]
    assert found.logit == pytest.approx(found.computed, abs=1e-4)


def test_the_printed_terms_add_up_to_the_printed_logit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", TEXT, "--target", " Lily"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("part"))
    rows = []
    for line in lines[start + 1 :]:
        numbers = line.replace("−", "-").replace(",", "").split()[-3:]
        try:
            rows.append(([round(float(number) * 10**6) for number in numbers], line))
        except ValueError:
            continue
        if line.startswith("sum"):
            break
    *terms, (total, last) = rows
    assert last.startswith("sum = logit") and len(terms) > 20
    assert [sum(values) for values in zip(*(numbers for numbers, _ in terms), strict=True)] == total
    assert all(value - rival == difference for (value, rival, difference), _ in rows)
    places = {len(number.partition(".")[2]) for _, line in rows for number in line.split()[-3:]}
    assert len(places) == 1, "a table has one number of decimal places"


def test_the_formula_that_is_printed_is_the_one_that_is_computed(
    theirs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why", TEXT, "--target", " Lily"]) == 0
    assert FORMULA in capsys.readouterr().out
    (term,) = (one for one in TERMS if "neurons" in one.places and one.name == "of the logit")
    assert FORMULA in term.meaning
    assert "minus its mean" in FORMULA and "gain" in FORMULA
    found: Why = engine().answer(WhyQuestion(Request(prompt=TEXT, target=Target(text=" Lily"))))
    vector = others_value(theirs, ModelPart(MLP, 2), [token.id for token in found.place.tokens])[-1]
    row, gain = theirs.lm_head.weight[found.target.id].detach(), theirs.transformer.ln_f.weight.detach()
    shown = {one.part: one.value for one in found.parts}[ModelPart(MLP, 2)]
    assert shown == pytest.approx(float(((vector - vector.mean()) / found.scale * gain) @ row), abs=1e-4)
    assert shown != pytest.approx(float(vector / found.scale @ row), abs=0.01), "the gain can't be left out"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", TEXT, "--target", " Lily", "--rival", " Lucy", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["target"]["text"] == " Lily" and made["rival"]["text"] == " Lucy"
    assert made["sum"] == pytest.approx(made["logit"], abs=1e-4)
    assert sum(one["value"] for one in made["parts"]) == pytest.approx(made["sum"], abs=1e-6)
    heads = [(one["layer"], one["head"]) for one in made["parts"] if one["head"] is not None]
    assert heads[:2] == [(0, 0), (0, 1)]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("",), "there is no token to look from"),
        ((TEXT, "--target", ""), "the target is empty"),
        ((TEXT, "--rival", ""), "the rival is empty"),
        ((TEXT, "--rival", "#99999999"), "there is no token 99999999"),
        ((TEXT, "--token", "99"), "there is no token number 99"),
    ],
)
def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], line: str) -> None:
    assert main(["why", *words]) == 2
    captured = capsys.readouterr()
    assert line in captured.err and captured.err.count("\n") == 1
