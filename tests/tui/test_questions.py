"""Questions to instruments: answered between readings; newer ones supersede older ones; a failure is one line."""

from __future__ import annotations

from dataclasses import dataclass

from fake_engine import FakeEngine
from helpers import answered, make_app, until

from tui_llm.common.errors import UserError
from tui_llm.facts.request import Question, Request


@dataclass(frozen=True, slots=True)
class Riddle(Question):
    text: str = ""


async def test_the_newest_question_of_a_kind_is_answered() -> None:
    engine = FakeEngine()
    engine.answers[Riddle] = lambda question: question.text.upper()
    app = make_app(engine)
    got: list[str] = []
    async with app.run_test() as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        engine.gate.clear()
        lab.readings.request()  # keeps the engine's thread busy, so that both questions wait
        lab.context.questions.ask(lab, Riddle(Request(), "old"), got.append)
        lab.context.questions.ask(lab, Riddle(Request(), "new"), got.append)
        engine.gate.set()
        await until(pilot, lambda: got)
        lab.context.questions.ask(lab, Riddle(Request(), "next"), got.append)
        await until(pilot, lambda: len(got) == 2)
        assert got == ["NEW", "NEXT"]
        assert [q.text for q in engine.questions] == ["new", "next"]


async def test_a_problem_is_one_line() -> None:
    engine = FakeEngine()

    def fail(_question: Riddle) -> str:
        raise UserError("there is\nno answer")

    engine.answers[Riddle] = fail
    app = make_app(engine)
    problems: list[str] = []
    got: list[str] = []
    async with app.run_test() as pilot:
        await answered(pilot, app.lab_screen)
        app.lab_screen.context.questions.ask(app.lab_screen, Riddle(Request()), got.append, problems.append)
        await until(pilot, lambda: problems)
        assert problems == ["there is no answer"] and not got
