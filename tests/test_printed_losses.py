"""Commands and screens print a loss as numbers that give each other: term by term in its table and its formula, and as a
change; and they name logsumexp for what it is of."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tui_llm.cli import main
from tui_llm.commands.shared.pin_tables import between_text
from tui_llm.commands.shared.report_stages import stages_text
from tui_llm.common.numbers import printed_change
from tui_llm.facts.pin import Pin
from tui_llm.facts.prediction import TargetToken
from tui_llm.facts.report import distribution_text, loss_text
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token
from tui_llm.llm.predict.distribution import process
from tui_llm.llm.predict.loss import loss_reading, token_losses
from tui_llm.training.run.pin_readings import PinReading, PinTargetToken

rows = st.lists(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=2), min_size=1, max_size=5)


def value(text: str) -> Decimal:
    return Decimal(text.strip("()").replace(",", "").replace("−", "-"))


def printed(logits: list[list[float]]) -> list[str]:
    losses = token_losses(torch.tensor(logits), [0] * len(logits))
    token = Token(0, b"a", "a")
    return loss_text(loss_reading("a", [TargetToken(token, one) for one in losses], 2)).splitlines()


@given(rows)
@example([[3.47435, 6.985]])  # rounded one by one: 7.0156 − 3.4744 = 3.5413, one unit off
@example([[0.00005, 20.0]])
@example([[-2.0, 7.9601]] * 3)
def test_the_terms_of_a_loss_are_the_same_in_table_and_formula_and_add_up(logits: list[list[float]]) -> None:
    lines = printed(logits)
    cells = [line.split() for line in lines[1 : 1 + len(logits)]]
    for row, line in zip(logits, cells, strict=True):
        logit, logsumexp, loss = value(line[3]), value(line[4]), value(line[-1])
        assert logsumexp - logit == loss
        wanted = torch.nn.functional.cross_entropy(torch.tensor(row).double(), torch.tensor(0)).item()
        assert float(loss) == pytest.approx(wanted, abs=1.01e-4 if len(logits) > 1 else 0.51e-4)
        assert float(logit) == pytest.approx(row[0], abs=2.01e-4)
    below = lines[1 + len(logits)]
    if len(logits) > 1:
        assert sum(value(line[-1]) for line in cells) == value(below.split()[1])
        return
    found = re.fullmatch(r"loss = logsumexp − logit = (\S+) − (\S+) = (\S+) nats = −ln (\S+)", below)
    assert found and list(map(value, found.groups()[:3])) == [value(cells[0][at]) for at in (4, 3, -1)]
    assert -math.log(float(found[4])) == pytest.approx(float(value(found[3])), abs=0.6e-4), "p has enough digits"


@given(st.floats(-50, 50), st.floats(-50, 50))
@example(2.00005, 2.00015)
def test_a_printed_change_is_that_of_the_printed_numbers(before: float, after: float) -> None:
    text = printed_change(before, after)
    assert Decimal(f"{after:.4f}") - Decimal(f"{before:.4f}") == value(text)
    assert text.startswith("+" if value(text) > 0 else "−" if value(text) < 0 else "0.0000")


def test_a_change_of_an_infinite_loss() -> None:
    changes = [printed_change(1.0, math.inf), printed_change(math.inf, 1.0), printed_change(math.inf, math.inf)]
    assert changes == ["+∞", "−∞", "NaN"]


def test_the_change_of_a_probe_adds_up() -> None:
    def reading(loss: float) -> PinReading:
        return PinReading(Pin("Once", " upon"), tokens=(PinTargetToken(0, b" upon", loss, math.exp(-loss), 1),))

    text = between_text((1, reading(2.00014)), (2, reading(1.00005)))
    assert "the target's loss: 2.0001 → 1.0001 nats (−1.0000)" in text


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 2.0])
def test_each_logsumexp_has_the_name_of_its_logits(temperature: float, penalty: float) -> None:
    z = torch.tensor([1.5, 0.25, -1.0])
    penalised = torch.tensor([1.5 / penalty, 0.25, -1.0]).double()  # id 0 is in the text
    settings = SamplerSettings(temperature=temperature, repetition_penalty=penalty)
    found = process(z, settings, [0]).distribution(3, lambda id: bytes([97 + id]))
    texts = distribution_text(found), stages_text(found)
    names = ("logsumexp of logits", f"logsumexp of {'penalised ' * (penalty != 1)}logits ÷ T =")
    sums = z.double().logsumexp(0), (penalised / temperature).logsumexp(0)
    for text, name, wanted in zip(texts, names, sums, strict=True):
        assert text.count("logsumexp") == 1 and f"{name} {wanted:.4f}" in text
    if temperature == penalty == 1:
        assert found.log_total == pytest.approx(found.logsumexp, rel=1e-12), "at T = 1 they agree"


def test_the_commands_print_both_names(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["a=1.5", "b=0.25", "c=-1", "--temperature", "0.5"]
    assert main(["softmax", *words]) == 0 and "logsumexp of logits " in capsys.readouterr().out
    assert main(["softmax", *words, "--stages"]) == 0 and "logsumexp of logits ÷ T = " in capsys.readouterr().out
