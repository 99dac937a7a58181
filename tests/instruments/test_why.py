"""Direct logit attribution, against transformers' GPT-2 with hooks in float64, and as the command prints it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import ATTENTION, HEAD, LAYER, MLP, REMAINDER, RESIDUAL, Intervention, ModelPart
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.why.question import Neurons, NeuronsQuestion, Why, WhyQuestion
from tui_llm.instruments.why.sums import OF_THE_LOGIT
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


def test_the_formula_in_words_leaves_nothing_out(theirs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean that LayerNorm subtracts and its gain change what an MLP adds; help and command say both."""
    found: Why = engine().answer(WhyQuestion(Request(prompt=TEXT, target=Target(text=" Lily"))))
    shown = next(one.value for one in found.parts if one.part == ModelPart(MLP, 2))
    kept: list[Tensor] = []
    handle = theirs.transformer.h[2].mlp.register_forward_hook(lambda module, args, out: kept.append(out))
    with torch.no_grad():
        theirs(torch.tensor([[token.id for token in found.place.tokens]]))
        handle.remove()
        vector, gain = kept[0][0, -1], theirs.transformer.ln_f.weight
        row = theirs.lm_head.weight[found.target.id]
        whole = float((vector - vector.mean()) / found.scale * gain @ row)
        assert shown == pytest.approx(whole, abs=1e-4)
        for less in (vector / found.scale @ row, vector / found.scale * gain @ row):
            assert abs(float(less) - whole) > 2e-4  # more than the numbers agree to
    assert "minus its mean" in OF_THE_LOGIT and "gain γ" in OF_THE_LOGIT
    assert OF_THE_LOGIT in next(term.meaning for term in TERMS if term.name == "of the logit")
    assert main(("why", TEXT, "--target", " Lily")) == 0
    assert OF_THE_LOGIT in " ".join(capsys.readouterr().out.split())


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


def test_a_stream_that_is_changed_has_a_part_of_its_own() -> None:
    model = engine()
    for part in (ModelPart(RESIDUAL, 2), ModelPart(ATTENTION, 1), ModelPart(LAYER, 3)):
        found: Why = model.answer(WhyQuestion(Request(prompt=TEXT, interventions=(Intervention(part),))))
        assert found.logit == pytest.approx(found.computed, abs=1e-4)
        assert found.parts[-1].part.kind == REMAINDER


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
