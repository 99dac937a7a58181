"""What the tour says of a part that is done stays true of what it names, whatever is typed after it; and of its own steps."""

from __future__ import annotations

import pytest

from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.instruments.vocabularies.question import Vocabularies, VocabulariesQuestion
from tui_llm.tour import checks_model, checks_numbers, checks_text
from tui_llm.tour.facts import Facts
from tui_llm.tour.tour import Tour, place_of

FIRST, LATER = "The cat sat on the mat", "A dog barks at two cats, and then at one of the mats"


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


def read(engine: PipelineEngine, text: str, **more: object) -> Facts:
    return Facts(prompt=text, reading=engine.read(Request(prompt=text)), **more)  # type: ignore[arg-type]


def test_the_tokens_of_a_text_are_said_of_that_text(engine: PipelineEngine) -> None:
    """The prompt changes while the outcome is shown."""
    tour, first, later = Tour(), read(engine, FIRST), read(engine, LATER)
    count, other = (len(engine.tokenizer.encode(text)) for text in (FIRST, LATER))
    assert count != other
    assert tour.update(first) and f"“{FIRST}” is {count} tokens for this model" in tour.seen
    tour.update(later)
    assert (tour.step, tour.part) == (0, 1)
    assert f"“{FIRST}” is {count} tokens" in tour.seen and "our text" not in tour.seen


def test_the_tokens_in_several_vocabularies_are_said_of_that_text(engine: PipelineEngine) -> None:
    """The next part asks for another text."""
    found = engine.answer(VocabulariesQuestion(Request(prompt=FIRST)))
    assert isinstance(found, Vocabularies)
    outcome = checks_text.compared(
        read(engine, FIRST, screen="vocabularies", answers={VocabulariesQuestion: found}), Facts()
    )
    assert outcome.done and outcome.words.startswith(f"“{FIRST}” in tokens: ")
    assert "same text" not in outcome.words and "your" not in outcome.words


def test_a_long_text_is_named_by_its_beginning(engine: PipelineEngine) -> None:
    text = f"{FIRST} {LATER} " * 4
    said = checks_text.own_text(read(engine, text.strip()), Facts()).words
    assert said.startswith(f"“{FIRST}") and "…” is " in said and len(said) < 200


def test_the_steps_that_texts_name_by_number_are_those() -> None:
    """`checks_text.counted` sends on to the loss, the step on softmax to sampling."""
    names = [step.name for step in Tour().steps]
    assert names[5 - 1] == "surprise" and names[8 - 1] == "writing"
    for check, name in ((checks_model.tuned, "assistant"), (checks_numbers.pinned, "learn")):
        (step,) = (step for step in Tour().steps if step.name == name)
        assert place_of(check) == f"step {names.index(name) + 1} of the tour, “{step.title}”"
