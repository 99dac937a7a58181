"""The tour's checks as pure functions: done, not done, and what is missing; and its numbers, against the formulas."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tui_llm import cli
from tui_llm.common import paths
from tui_llm.common.numbers import percent
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import Intervention, ModelPart
from tui_llm.facts.model import Weights
from tui_llm.facts.pin import Pin
from tui_llm.facts.policy import PolicyRecipe
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.preference import DPOSettings, PairChange, PairState, PreferenceRecipe, RankedPair
from tui_llm.facts.reading import Reading
from tui_llm.facts.recipe import LearnStep, Recipe
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token
from tui_llm.instruments.ablate.question import AblateQuestion
from tui_llm.instruments.attention.question import AttentionQuestion
from tui_llm.instruments.draws.question import DrawQuestion, HistogramQuestion
from tui_llm.instruments.gradient.question import Gradient, GradientQuestion, LogitGradient
from tui_llm.instruments.learn.question import (
    CandidateChange,
    Learned,
    LearnQuestion,
    PinChange,
    TargetState,
)
from tui_llm.instruments.lens.question import LensQuestion
from tui_llm.instruments.pairs.question import Pairs, PairsQuestion
from tui_llm.instruments.prefer.question import (
    AnswersQuestion,
    PreferQuestion,
    Preferred,
    PreferredAnswer,
    TwoAnswers,
)
from tui_llm.instruments.reward.question import RewardGroup, RewardQuestion, RewardRun, RewardStep, ScoredAnswer
from tui_llm.instruments.scratch.question import ScratchQuestion, split
from tui_llm.instruments.sft.question import LEARNED, Instructed, InstructQuestion
from tui_llm.instruments.textfile.question import TextFile, TextFileQuestion
from tui_llm.instruments.why.question import WhyQuestion
from tui_llm.llm.data.instruction_pairs import EXAMPLES
from tui_llm.tour import checks_assistant, checks_model, checks_numbers, checks_text, numbers
from tui_llm.tour.checks import CHECKS
from tui_llm.tour.facts import CheckResult, Facts, RunFacts
from tui_llm.tour.tour import Tour, path
from tui_llm.tui.keymap import BY_ID

STEPS = Tour().steps
WEIGHTS = Weights("nano", None, 1, 1, 1, 1, 256, 4096, "cpu")
HOSTILE = "[/]{undo}\x1b]0;x\x07\u202e[red]漢字e\u0301"


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


def read(engine: PipelineEngine, prompt: str, target: Target | None = None) -> Reading:
    return engine.read(Request(prompt=prompt, target=target))


def facts(reading: Reading | None = None, **more: Any) -> Facts:
    return Facts(prompt=reading.request.prompt if reading else "", reading=reading, **more)


def token(text: str, id: int = 5) -> Token:
    return Token(id, text.encode(), text)


def drawn(text: str, u: float | None, id: int = 5, p: float = 0.25) -> GeneratedToken:
    return GeneratedToken(0, id, text.encode(), text, u, p, p, 1, ())


def told(outcome: CheckResult, done: bool) -> str:
    assert outcome.done is done, outcome
    assert outcome.words
    return outcome.words


# ── the numbers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_numbers_of_the_tutorial_follow_from_the_formulas() -> None:
    assert numbers.shares(numbers.softmax(list(numbers.LOGITS.values()))) == "86.6/13.0/0.4 %"
    assert numbers.nats(numbers.loss(checks_numbers.GOOD)) == "0.14"
    assert numbers.nats(numbers.loss(checks_numbers.TERRIBLE)) == "4.61"
    assert "53.3/30.0/13.3/3.3 % at T 0.5" in checks_model.table_words()
    assert "32.5/28.2/23.0/16.3 % at T 2" in checks_model.table_words()


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30), st.sampled_from([0.5, 1.0, 2.0]))
def test_softmax_and_loss_are_torchs(logits: list[float], temperature: float) -> None:
    expected = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, 0)
    assert numbers.softmax(logits, temperature) == pytest.approx(expected.tolist(), abs=1e-12)
    p = numbers.softmax(logits)
    again = torch.softmax(torch.tensor(logits, dtype=torch.float64).log_softmax(0) / temperature, 0)
    if min(p) > 0:
        assert numbers.tempered(p, temperature) == pytest.approx(again.tolist(), abs=1e-9)
        assert numbers.loss(p[0]) == pytest.approx(
            float(
                torch.nn.functional.cross_entropy(torch.tensor(logits, dtype=torch.float64)[None], torch.tensor([0]))
            ),
            abs=1e-9,
        )


def test_words_of_the_steps_name_keys_that_there_are() -> None:
    parts = [part for step in STEPS for part in step.parts]
    said = [text for part in parts for text in (part.do, part.check(Facts(), Facts()).words)]
    for text in (*said, Tour().finished_words):
        assert set(re.findall(r"\{([^{}]*)\}", text)) <= BY_ID.keys()
    assert len(STEPS) == 12 and len({step.name for step in STEPS}) == 12


@given(st.text())
def test_foreign_text_is_safe_and_never_becomes_a_key(text: str) -> None:
    said = numbers.keyed(numbers.words(text, 30), lambda id: pytest.fail(f"a key {id}"))
    assert not {c for c in said if unicodedata.category(c).startswith("C")}


# ── the checks ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_labels(engine: PipelineEngine) -> None:
    short, long = read(engine, "Hi"), read(engine, "The cat sat on the mat " + HOSTILE)
    assert "typing" in told(checks_text.own_text(facts(long, typing=True), Facts()), False)
    assert "waiting" in told(checks_text.own_text(Facts(), Facts()), False)
    assert f"{len(short.prompt_ids)} tokens" in told(checks_text.own_text(facts(short), Facts()), False)
    assert f"{len(long.prompt_ids)} tokens" in told(checks_text.own_text(facts(long), Facts()), True)
    assert "no guess" in told(checks_text.predicted(Facts(), Facts()), False)
    assert "no whole number" in told(checks_text.predicted(Facts(typed={"pairs": "many"}), Facts()), False)
    told(checks_text.predicted(Facts(typed={"pairs": " 1,000 "}), Facts()), True)
    pairs = engine.answer(PairsQuestion(long.request))
    assert isinstance(pairs, Pairs)
    open_ = facts(long, screen="pairs", answers={PairsQuestion: pairs}, typed={"pairs": str(pairs.count - 1)})
    assert "you were right" in told(checks_text.counted(open_, Facts()), True)
    assert "you said 3" in told(checks_text.counted(dataclasses.replace(open_, typed={"pairs": "3"}), Facts()), True)
    assert "not open" in told(checks_text.counted(dataclasses.replace(open_, screen="lab"), Facts()), False)


def test_a_file(engine: PipelineEngine, tmp_path: Path) -> None:
    file = tmp_path / "own [red].txt"
    file.write_text("The cat sat.\n" * 9, encoding="utf-8")
    found = engine.answer(TextFileQuestion(Request(), str(file)))
    assert isinstance(found, TextFile) and found.tokens == len(engine.tokenizer.encode(file.read_text()))
    now = Facts(answers={TextFileQuestion: found})
    assert f"{found.tokens - 1:,} examples" in told(checks_text.file_counted(now, Facts()), True)
    told(checks_text.file_counted(now, now), False)  # counted before this part started
    assert "nowhere" in told(checks_text.file_counted(Facts(problems={TextFileQuestion: "nowhere"}), Facts()), False)


def test_words_and_letters(engine: PipelineEngine) -> None:
    plain, odd = read(engine, "The cat"), read(engine, "The cat zxqvwkj")
    assert "same as before" in told(checks_text.rare_word(facts(plain), facts(plain)), False)
    assert "invent one" in told(checks_text.rare_word(facts(read(engine, "The dog")), facts(plain)), False)
    word, count = checks_text.longest_word(facts(odd))
    assert word == "zxqvwkj" and count == len(odd.prompt_ids) - len(plain.prompt_ids)
    assert f"{count} pieces" in told(checks_text.rare_word(facts(odd), facts(plain)), True)
    berry = read(engine, "a strawberry")
    assert "counted yet" in told(checks_text.strawberry(facts(berry), Facts()), False)
    assert "“r” occurs 3 times" in told(checks_text.strawberry(facts(berry, screen="letters"), Facts()), True)
    told(checks_text.strawberry(facts(read(engine, "123"), screen="letters"), Facts()), False)
    same = facts(plain, screen="letters")
    assert "no r" in told(checks_text.strawberry(same, facts(plain)), False)
    told(checks_text.strawberry(same, Facts()), True)  # the learner's own word
    other = engine.read(Request(prompt="The cat zxqvwkj strawberry", tokenizer="bytes", position=1))
    for now in (facts(other), facts(other, screen="letters")):
        check = checks_text.rare_word if now.screen == "lab" else checks_text.strawberry
        assert "{vocabulary}" in told(check(now, facts(plain)), False)
    assert "{vocabulary}" in told(checks_text.ids_seen(facts(other, token_view="ids"), Facts()), False)


def test_generated_tokens_and_a_start_token_are_not_of_the_prompt(engine: PipelineEngine) -> None:
    made = tuple(engine.tokenizer.encode(" there was a cat"))
    reading = engine.read(Request(prompt="Once upon", continuation=made, start_token=True))
    count = len(engine.tokenizer.encode("Once upon"))
    assert facts(reading).count == count == len(reading.prompt_ids) - len(made) - 1
    assert f"the text has {count} tokens" in told(checks_text.own_text(facts(reading), Facts()), False)


def test_ids(engine: PipelineEngine) -> None:
    end = read(engine, "The cat sat")
    inside = engine.read(Request(prompt="The cat sat", position=1))
    assert "{token_view}" in told(checks_text.ids_seen(facts(end), Facts()), False)
    assert "{cursor_left}" in told(checks_text.ids_seen(facts(end, token_view="ids"), Facts()), False)
    second = inside.prompt_ids[1]
    assert f"“ cat” is number {second:,}" in told(checks_text.ids_seen(facts(inside, token_view="ids"), Facts()), True)


def test_obstacles_are_reported_first() -> None:
    for check, keys in ((checks_text.counted, "{pane_tokens} {pairs}"), (checks_numbers.gradient_seen, "{gradient}")):
        assert keys in told(check(Facts(), Facts()), False)
    for check in (checks_text.counted, checks_text.compared, checks_text.merged, checks_numbers.own_logits):
        assert "Esc back to the panes, then" in told(check(Facts(screen="help"), Facts()), False)
        assert "{done_typing}, then" in told(check(Facts(typing=True), Facts()), False)
        assert "window is open" in told(check(Facts(typing=True, asking=True), Facts()), False)


def test_softmax(engine: PipelineEngine) -> None:
    def scratch(text: str, **more: Any) -> Facts:
        found = engine.answer(ScratchQuestion(Request(), split(text)))
        return Facts(screen="scratch", answers={ScratchQuestion: found}, **more)

    reading = read(engine, "The cat sat on the")
    told(checks_numbers.staged(facts(reading), Facts()), False)
    for sampler, key in ((SamplerSettings(temperature=0.8), "{warmer}"), (SamplerSettings(temperature=1.1), "{cooler}"),
                         (SamplerSettings(top_p=0.9), "{top_p_up}")):  # fmt: skip
        assert key in told(checks_numbers.staged(facts(reading, stage=1, sampler=sampler), Facts()), False)
    inside = engine.read(Request(prompt="The cat sat on the", position=2))
    assert "cursor" in told(checks_numbers.staged(facts(inside, stage=1), Facts()), False)
    assert "logit" in told(checks_numbers.staged(facts(reading, stage=1), Facts()), True)
    own = told(checks_numbers.own_logits(scratch("mat=3.2 rug=1.3 moon=-2.1"), Facts()), True)
    assert "“mat” 86.6 %, “rug” 13.0 %, “moon” 0.43 %; the column sums to 100.0 %" in own and "tutorial" not in own
    assert "86.6/13.0/0.4 %" in told(checks_numbers.own_logits(scratch("a=1 [/]=2"), Facts()), True)
    told(checks_numbers.own_logits(scratch("a=1"), Facts()), False)
    before = scratch("a=1 b=2")
    told(checks_numbers.changed_logit(before, before), False)
    told(checks_numbers.changed_logit(scratch("a=1 b=3", typing=True), before), False)
    opened = Facts(scratch="a=1 b=2")  # the tour was closed and opened again: there is no answer yet
    told(checks_numbers.changed_logit(before, opened), False)
    told(checks_numbers.changed_logit(scratch("mat=3.2"), Facts(scratch="mat=3.2")), False)
    assert "“b” went from raw p 73.1 % to 88.1 %" in told(
        checks_numbers.changed_logit(scratch("a=1 b=3"), opened), True
    )
    for broken in ("", "a", "a=inf b=2"):
        told(checks_numbers.changed_logit(scratch("a=1 b=3"), Facts(scratch=broken)), False)
    assert "100.0 %" in told(checks_numbers.changed_logit(scratch("a=1 b=0"), before), True)
    wrong = Facts(screen="scratch", problems={ScratchQuestion: HOSTILE})
    assert "\x1b" not in told(checks_numbers.own_logits(wrong, Facts()), False)


def test_surprise(engine: PipelineEngine) -> None:
    plain = read(engine, "The cat sat on the")
    assert plain.distribution is not None
    best = read(engine, "The cat sat on the", Target(id=plain.distribution.candidates[0].id))
    bad = read(engine, "The cat sat on the", Target(text=" zebra"))
    assert "no target" in told(checks_numbers.likely_target(facts(plain), Facts()), False)
    assert "rank" in told(checks_numbers.likely_target(facts(bad), Facts()), False)
    assert best.loss is not None and bad.loss is not None
    assert "{pane_loss}" in told(checks_numbers.likely_target(facts(best), Facts()), False)
    assert f"{best.loss.tokens[0].loss.nats:.2f} nats" in told(
        checks_numbers.likely_target(facts(best, place="loss"), Facts()), True
    )
    assert "4.61" in told(checks_numbers.unlikely_target(facts(best), Facts()), False)
    said = told(checks_numbers.unlikely_target(facts(bad), Facts()), True)
    assert f"ln V = {math.log(engine.tokenizer.size):.2f}" in said
    rows = LogitGradient(token(" mat"), 0.4, -0.6, True), LogitGradient(token(HOSTILE), 0.5, 0.5, False)
    gradient = Gradient(GradientQuestion(Request()), token(" mat"), 1, rows, 10, 0.1)
    said = told(checks_numbers.gradient_seen(Facts(answers={GradientQuestion: gradient}), Facts()), True)
    assert "−0.600" in said and "0.500 for" in said and "over all tokens 0.000" in said
    told(checks_numbers.gradient_seen(Facts(), Facts()), False)


def learned(steps: int) -> Learned:
    change = PinChange(Pin("x", "y"), 1.0, 1.5, 0.4, 0.2, None, None, 0.1)
    runner = CandidateChange(token(" dog"), 0.5, 0.25, 1, 2, False)
    done = tuple(LearnStep(n, Recipe(), 1.0, 0.5, 0.6) for n in range(1, steps + 1))
    return Learned(LearnQuestion(Request()), WEIGHTS, "", (token(" cat"),), TargetState(2.0, 0.135, 3),
                   TargetState(0.5, 0.6, 1), (runner,), (change,), done, 0, 0, 0)  # fmt: skip


def test_one_step() -> None:
    told(checks_numbers.pinned(Facts(), Facts()), False)
    told(checks_numbers.pinned(Facts(pins=1), Facts()), True)
    began = Facts(prompt="what was pinned")
    told(checks_numbers.learned(Facts(screen="learn", answers={LearnQuestion: learned(0)}), began), False)
    stepped = Facts(screen="learn", answers={LearnQuestion: learned(1)})
    assert "another sentence" in told(checks_numbers.learned(stepped, stepped), False)
    said = told(checks_numbers.learned(stepped, began), True)
    assert "2.00 → 0.50" in said and "50.0 % → 25.0 %" in said and "1.00 → 1.50, forgotten" in said
    told(checks_numbers.undone(stepped, Facts()), False)
    told(checks_numbers.undone(Facts(answers={LearnQuestion: learned(0)}), Facts()), True)


def test_the_loop() -> None:
    fresh = RunFacts("tales", "running", 10, 100)
    told(checks_model.started(Facts(), Facts()), False)
    told(checks_model.started(Facts(run=fresh), Facts()), True)
    old = dataclasses.replace(fresh, state="finished")
    assert "from before" in told(checks_model.started(Facts(run=old), Facts(run=old)), False)
    assert "failed" in told(checks_model.started(Facts(run=dataclasses.replace(fresh, state="failed")), Facts()), False)
    assert "first evaluation" in told(checks_model.unigram(Facts(run=fresh), Facts()), False)
    seen = dataclasses.replace(fresh, loss=2.5, unigram=3.1, bigram=2.2, sample=HOSTILE)
    assert "3.10" in told(checks_model.unigram(Facts(run=seen), Facts()), True)
    for at, words in (
        (0, "Untrained it wrote"),
        (50, "At step 50 it wrote"),
    ):  # an earlier sample is not presented as a new one
        early = dataclasses.replace(seen, sample_step=at)
        assert words in told(checks_model.unigram(Facts(run=early), Facts()), True)
    assert "2.20" in told(checks_model.bigram(Facts(run=seen), Facts()), False)
    assert "has ended" in told(
        checks_model.bigram(Facts(run=dataclasses.replace(seen, state="finished")), Facts()), False
    )
    told(checks_model.watched(Facts(), Facts()), False)
    told(checks_model.watched(Facts(screen="learned"), Facts()), True)


def test_write_returns_generated_text(engine: PipelineEngine) -> None:
    def at(temperature: float, *steps: GeneratedToken) -> Facts:
        return Facts(sampler=SamplerSettings(temperature=temperature), steps=steps, place="generate")

    assert "{cooler}" in told(checks_model.greedy(at(0.8), Facts()), False)
    assert "{draw}" in told(checks_model.greedy(at(0), Facts()), False)
    told(checks_model.greedy(at(0, drawn("x", 0.5)), Facts()), False)
    told(checks_model.greedy(at(0, drawn("x", None)), Facts()), True)
    cold = at(0.5, drawn("x", 0.5))
    told(checks_model.cold(at(0.5), Facts()), False)
    told(checks_model.cold(cold, Facts()), True)
    assert "{draw}" in told(checks_model.replayed(at(0.5), cold), False)
    assert "{show_draw}" in told(checks_model.replayed(cold, cold), False)

    def draw(u: float, *temperatures: float) -> str:
        samplers = tuple(SamplerSettings(temperature=t) for t in temperatures)
        found = engine.answer(DrawQuestion(Request(prompt="Once upon a"), samplers, u))
        outcome = checks_model.replayed(dataclasses.replace(cold, screen="draw", answers={DrawQuestion: found}), cold)
        assert outcome.done is (temperatures == (0.5, 2.0))
        return outcome.words

    assert "{replay_warmer}" in draw(0.5, 0.5, 1.5) and "{replay_cooler}" in draw(0.5, 0.5, 2.1)
    assert "{draw_earlier}" in draw(0.5, 1.0, 2.0)
    assert "the same token" in draw(0.0, 0.5, 2.0) and "instead of" in draw(0.9999, 0.5, 2.0)
    sure = engine.answer(HistogramQuestion(Request(prompt="Once upon a", sampler=SamplerSettings(temperature=0.1)), 10))
    always = Facts(screen="draw_many", answers={HistogramQuestion: sure})
    assert "{many_warmer}" in told(checks_model.drawn_often(always, cold), False)
    assert "{draw_many}" in told(checks_model.drawn_often(cold, cold), False)
    many = engine.answer(HistogramQuestion(Request(prompt="The cat sat on the"), 1000))
    said = told(checks_model.drawn_often(Facts(screen="draw_many", answers={HistogramQuestion: many}), cold), True)
    assert f"Of 1,000 draws {many.rows[0][1].count:,} were" in said
    cut = SamplerSettings(top_p=0.5)
    reading = engine.read(Request(prompt="Once upon a", sampler=cut))
    told(checks_model.nucleus(Facts(reading=reading, sampler=cut), Facts(sampler=cut)), False)
    said = told(checks_model.nucleus(Facts(reading=reading, sampler=cut), Facts()), True)
    assert "keeps" in said and "sums to" in said
    greedy = SamplerSettings(temperature=0, top_p=0.5)
    reading = engine.read(Request(prompt="Once upon a", sampler=greedy))
    assert "cuts nothing" in told(checks_model.nucleus(Facts(reading=reading, sampler=greedy), Facts()), False)
    found = engine.answer(ScratchQuestion(Request(), split(numbers.table_logits()), temperatures=(0.5, 1.0, 2.0)))
    now = Facts(screen="temperatures", answers={ScratchQuestion: found})
    said = told(checks_model.table(now, Facts()), True)
    assert "T 0.5: 53.3/30.0/13.3/3.3 %, T 1: 40.0/30.0/20.0/10.0 %, T 2: 32.5/28.2/23.0/16.3 %" in said
    told(checks_model.table(Facts(), Facts()), False)


def test_inside_and_the_assistant(engine: PipelineEngine) -> None:
    old, new = read(engine, "The cat sat on the"), read(engine, "The dog sat on the")
    told(checks_model.decided(facts(old), facts(old)), False)
    for text in ("The dog ran on the", "The cat sat on the mat", "The cat sat  on the"):
        assert "one word" in told(checks_model.decided(facts(read(engine, text)), facts(old)), False)
    assert "likeliest now" in told(checks_model.decided(facts(new), facts(old)), True)
    for check in (checks_model.attended, checks_model.lensed):
        told(check(Facts(), Facts()), False)
    looked = engine.answer(AttentionQuestion(old.request))
    said = told(
        checks_model.attended(Facts(screen="inside", view="attention", answers={AttentionQuestion: looked}), Facts()),
        True,
    )
    assert percent(max(looked.mean.weights)) in said and "4 × 4 heads" in said
    lens = engine.answer(LensQuestion(old.request))
    said = told(checks_model.lensed(Facts(screen="inside", view="lens", answers={LensQuestion: lens}), Facts()), True)
    assert old.distribution is not None and percent(old.distribution.candidates[0].raw_probability) in said
    assert "{why}" in told(checks_model.attributed(facts(old), facts(old)), False)
    assert "Esc back to the panes, then {why}" in told(checks_model.attributed(Facts(screen="inside"), Facts()), False)
    why = engine.answer(WhyQuestion(old.request))
    said = told(checks_model.attributed(facts(old, screen="why", answers={WhyQuestion: why}), facts(old)), True)
    largest = max(why.parts, key=lambda one: abs(one.value - one.rival))
    assert f"is “{largest.part.name}”: " in said
    shown = [float(number.replace("−", "-")) for number in re.findall(r"[+−]\d+\.\d+", said)]
    # The printed terms add up to the printed total, so each may be off by one in its last place.
    assert shown == pytest.approx([why.logit - why.rival_logit, largest.value - largest.rival], abs=2e-3)
    off = (Intervention(ModelPart("head", 0, 1)),)
    assert "{ablate_open}" in told(checks_model.switched_off(facts(old), facts(old)), False)
    assert "{ablate_switch}" in told(checks_model.switched_off(facts(old, screen="ablate"), facts(old)), False)
    changed = engine.read(dataclasses.replace(old.request, interventions=off))
    ablation = engine.answer(AblateQuestion(old.request, off))
    now = facts(changed, screen="ablate", answers={AblateQuestion: ablation})
    said = told(checks_model.switched_off(now, facts(old)), True)
    assert "head 0.1 off" in said and f"{ablation.after.loss:.2f}" in said
    assert "{parts_on}" in told(checks_model.switched_on(facts(changed), now), False)
    told(checks_model.switched_on(facts(old), now), True)
    question = read(engine, "What is your name?")
    assert "question mark" in told(checks_model.continued(facts(old), Facts()), False)
    greedy = SamplerSettings(temperature=0)
    assert "0 of" in told(checks_model.continued(facts(question, sampler=greedy), Facts()), False)
    steps = tuple(drawn(HOSTILE, 0.1) for _ in range(checks_model.CONTINUED))
    assert "{cooler}" in told(checks_model.continued(facts(question, steps=steps), Facts()), False)
    told(checks_model.continued(facts(question, steps=steps, sampler=greedy), Facts()), True)
    told(checks_model.tuned(Facts(), Facts()), False)
    assert "learning" in told(checks_model.tuned(Facts(typed={"instruct": "x"}), Facts()), False)
    made = Instructed(InstructQuestion(Request(), EXAMPLES), WEIGHTS, "assistant", "/x", 55, 35, 3.0, 0.1, (3.0, 0.2))
    assert "3.00 → 0.10" in told(checks_model.tuned(Facts(answers={InstructQuestion: made}), Facts()), True)
    answers = Facts(answers={InstructQuestion: made}, steps=steps)
    assert "not open" in told(checks_model.answers(answers, Facts()), False)
    said = told(checks_model.answers(dataclasses.replace(answers, model="assistant"), Facts()), True)
    assert "still 0.10" in said and "not learned" in said
    learned = dataclasses.replace(
        answers, model="assistant", answers={InstructQuestion: dataclasses.replace(made, after=LEARNED)}
    )
    assert "an answer it knows" in told(checks_model.answers(learned, Facts()), True)
    told(CHECKS["confirmed"].make({}, "end")(Facts(), Facts()), False)
    told(CHECKS["confirmed"].make({}, "end")(Facts(typed={"end": ""}), Facts()), True)


def test_preferences() -> None:
    one, two = (PreferredAnswer((token(text, id),), (log,), 1, False) for text, id, log in ((HOSTILE, 5, -1.0), ("b", 6, -2.5)))  # fmt: skip
    asked = AnswersQuestion(Request())
    for left, right, ready in ((one, one, False), (one, two, True)):
        drawn_two = TwoAnswers(asked, WEIGHTS, (1,), "x", left, right)
        now = Facts(screen="prefer", answers={AnswersQuestion: drawn_two})
        said = told(checks_assistant.two_answers(now, Facts()), ready)
        assert ("A −1.0, B −2.5" in said) is ready and ("the same" in said) is not ready
    assert "{prefer}" in told(checks_assistant.two_answers(Facts(), Facts()), False)
    problem = Facts(screen="prefer", problems={PreferQuestion: "no memory"})
    assert "no memory" in told(checks_assistant.two_answers(problem, Facts()), False)
    assert "no memory" in told(checks_assistant.ranked(problem, Facts()), False)

    pair = RankedPair((1,), (5,), (6,))
    before, after = (PairState(-1.0, -2.0, 0.0, 0.0, 0.0, math.log(2)), PairState(-1.1, -2.4, -0.01, -0.04, 0.03, 0.678))  # fmt: skip
    change = PairChange(before, after, (math.log(2),), ((-1.0, -1.1),), ((-2.0, -2.4),), None, 0.01, 1, 0)
    for count in (0, 5, 6):
        found = Preferred(PreferQuestion(Request()), WEIGHTS, (pair,) * count, (change,) * count, (), (), 0, 0, "", "")
        now = Facts(screen="prefer", answers={PreferQuestion: found})
        said = told(checks_assistant.ranked(now, Facts()), count == 6)
        assert ("+0.000 → +0.030" in said and "0.69 → 0.68" in said) if count == 6 else f"{count} of 6" in said
    assert "In 6 of 6 both answers became less probable: only their" in said and "no preference: ln 2 = 0.69" in said
    with_sft = RankedPair((1,), (5,), (6,), PreferenceRecipe(DPOSettings(sft_weight=1.0)))  # whose loss is above ln 2
    now = Facts(screen="prefer", answers={PreferQuestion: dataclasses.replace(found, ranked=(with_sft,) * 6)})
    said = told(checks_assistant.ranked(now, Facts()), True)
    assert "ln 2" not in said and "In 6 of 6 both answers became less probable." in said


def test_rewards() -> None:
    def now(spec: str, means: list[float | None], kl: float = 1.0, screen: str = "reward") -> Facts:
        steps = tuple(
            RewardStep(at, spec, PolicyRecipe(), mean, 0.1, kl * at, 8, 0.5) for at, mean in enumerate(means, 1)
        )
        group = RewardGroup(
            dataclasses.replace(steps[-1], spec=spec)
            if steps
            else RewardStep(1, spec, PolicyRecipe(), 0.0, 0.0, 0.0, 8, 0.5),
            (ScoredAnswer((), HOSTILE, 1, False, 1.0, 0.0, ()),),
        )
        run = RewardRun(RewardQuestion(Request()), WEIGHTS, "x", steps, group, False, 0, 0, 0)
        return Facts(screen=screen, answers={RewardQuestion: run})

    rewarded, hacked = checks_assistant.rewarded, checks_assistant.hacked
    for check in (rewarded, hacked):
        assert "{reward}" in told(check(now("count:happy", [0.0], screen="lab"), Facts()), False)
        assert "ends:." in told(check(now("ends:.", [0.0]), Facts()), False)
    assert "2 of 5" in told(rewarded(now("contains:happy", [0.0, 0.5]), Facts()), False)
    assert "0.25 → 0.75" in told(rewarded(now("contains:happy", [0.25, 0.5, 0.5, 0.5, 0.75]), Facts()), True)
    assert "all rewards were equal" in told(rewarded(now("contains:happy", [0.0] * 5), Facts()), True)
    rising = [0.1, 0.1, 0.2, 0.8, 1.5, 2.0, 3.0]
    assert "not hacked yet" in told(hacked(now("count:happy", rising, kl=0.0), Facts()), False)
    assert "Reward hacking?" in told(hacked(now("count:happy", rising), Facts()), True)
    assert "{reward_preset}" in told(hacked(now("contains:happy", rising), Facts()), False)
    assert "opens nano" in told(hacked(now("count:happy", [0.0] * 30), Facts()), False)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_part_can_fail_and_says_what_is_missing(step: Any) -> None:
    for part in step.parts:
        assert not part.check(Facts(), Facts()).done and part.check(Facts(), Facts()).words


# ── moving through the tour, and resuming it ──────────────────────────────────────────────────────────────────────────


def test_the_tour_advances_by_itself_and_resumes(engine: PipelineEngine) -> None:
    tour, text = Tour(), facts(read(engine, "The cat sat on the mat"))
    assert not tour.load() and tour.update(Facts()) and tour.lacks
    assert tour.update(text) and (tour.step, tour.part) == (0, 1) and "tokens" in tour.seen
    tour.save()
    again = Tour()
    assert again.load() and (again.step, again.part, again.done) == (0, 1, {("labels", 0)})
    # back: nothing is checked until the facts change
    assert again.move(-1, text) and not again.update(text) and again.part == 0
    assert again.update(dataclasses.replace(text, place="tokens")) and again.part == 1
    assert not Tour().move(-1, text)


def test_a_part_resumed_before_the_first_reading_begins_with_that_reading(engine: PipelineEngine) -> None:
    tour, text = Tour(), "The cat sat on the"
    (at,) = ((step, part) for step, one in enumerate(STEPS) for part, here in enumerate(one.parts)
             if here.check is checks_model.decided)  # fmt: skip
    tour.step, tour.part = at
    tour.update(Facts(prompt=text))
    tour.update(facts(read(engine, text)))
    tour.update(Facts(prompt="The dog sat on the"))
    assert tour.update(facts(read(engine, "The dog sat on the"))) and "likeliest now" in tour.seen


def test_every_part_can_be_skipped_and_revisited() -> None:
    tour, parts = Tour(), sum(len(step.parts) for step in STEPS)
    for _ in range(parts):
        assert tour.move(1, Facts())
    assert tour.finished and not tour.move(1, Facts()) and not tour.update(Facts()) and not tour.done
    tour.save()
    again = Tour()
    assert again.load() and again.finished
    for _ in range(parts):
        assert again.move(-1, Facts())
    assert (again.step, again.part) == (0, 0)


@pytest.mark.parametrize("kept", ["", "{", "[]", "null", '{"step": "x", "part": 0, "done": []}', '{"step": "labels", "part": 99, "done": []}',
                                  '{"step": "labels", "part": "x", "done": []}', '{"step": [], "part": 0, "done": 3}'])  # fmt: skip
def test_a_damaged_progress_file_restarts_the_tour(kept: str) -> None:
    path().parent.mkdir(parents=True, exist_ok=True)
    path().write_text(kept, encoding="utf-8")
    tour = Tour()
    assert not tour.load() and (tour.step, tour.part, tour.done) == (0, 0, set())


def test_the_command_prints_the_progress(capsys: pytest.CaptureFixture[str]) -> None:
    tour = Tour()
    tour.done.add(("labels", 0))
    tour.move(1, Facts())
    tour.save()
    assert cli.main(["tour", "--json"]) == 0
    assert '"done": 1' in capsys.readouterr().out
    assert cli.main(["tour", "--again", "--json"]) == 0
    assert '"done": 1' not in capsys.readouterr().out and not (paths.data_dir() / "tour.json").exists()
