"""Checks on what comes after fine-tuning: preferences and rewards."""

from __future__ import annotations

from tui_llm.common.numbers import counted
from tui_llm.instruments.prefer.question import AnswersQuestion, PreferQuestion, Preferred, TwoAnswers
from tui_llm.instruments.reward.question import RewardQuestion, RewardRun, RewardStep, hacking
from tui_llm.tour.checks_text import WAIT
from tui_llm.tour.facts import CheckResult, Facts, done, missing, not_yet
from tui_llm.tour.numbers import foreign, nats, words

RANKED = 6  # pairs to rank
REWARDED = 5  # steps that show whether the mean reward rises
WORD = "happy"


def two_answers(now: Facts, began: Facts) -> CheckResult:
    """Two different answers are drawn, side by side."""
    if now.screen != "prefer":
        return not_yet(now, "no two answers are drawn", "{prefer}")
    for question in (PreferQuestion, AnswersQuestion):
        if question in now.problems:
            return missing(foreign(now.problems[question]))
    two = now.answer(AnswersQuestion, TwoAnswers)
    if two is None:
        return missing(WAIT)
    if two.left.ids == two.right.ids:
        return missing("both answers are the same: {prefer_temperature}, 1; or {prefer_redraw_right} draws another one")
    return done(
        f"ln π of the whole answer: A {two.left.logp:.1f}, B {two.right.logp:.1f}. The model finds one likelier; which is better, "
        "only you can say.".replace("-", "−")
    )


def ranked(now: Facts, began: Facts) -> CheckResult:
    """Six pairs were ranked."""
    found = now.answer(PreferQuestion, Preferred)
    if PreferQuestion in now.problems:
        return missing(foreign(now.problems[PreferQuestion]))
    count = len(found.ranked) if found is not None else 0
    if found is None or count < RANKED:
        if now.screen != "prefer":
            return not_yet(now, f"{count} of {RANKED} pairs are ranked", "{prefer}")
        return missing(f"{count} of {RANKED} pairs: {{prefer_left}} or {{prefer_right}}, then {{prefer_next}}")
    last, at_start = found.changes[-1], found.ranked[-1].recipe.dpo.loss_at_start
    no_preference = "" if at_start is None else f" (no preference: ln 2 = {at_start:.2f})"
    fell = [pair.recipe.dpo for pair, change in zip(found.ranked, found.changes, strict=True) if change.both_fell]
    why = ": only their difference counts" if all(dpo.loss_at_start is not None for dpo in fell) else ""
    said = f" In {len(fell)} of {count} both answers became less probable{why}." if fell else ""
    return done(
        f"Margin of the last pair: {last.before.margin:+.3f} → {last.after.margin:+.3f}; its loss {nats(last.before.loss)} → "
        f"{nats(last.after.loss)}{no_preference}.{said}".replace("-", "−")
    )


def rewarded(now: Facts, began: Facts) -> CheckResult:
    """Some steps were taken on a rule that rewards the word."""
    run, steps = _steps(now)
    if run is None:
        return _no_run(now)
    if not (steps or WORD in run.group.step.spec):
        return missing(f"the rule is {words(run.group.step.spec, 30)}: {{reward_preset}} until it is contains:{WORD}")
    if len(steps) < REWARDED:
        return missing(f"{len(steps)} of {REWARDED} steps: {{reward_step}} takes one, {{reward_ten}} ten")
    means = [step.mean or 0.0 for step in steps]
    if not any(means):
        return done(f"{_after(steps)} no answer had the word, so all rewards were equal, and nothing could be learned.")
    return done(f"{_after(steps)} mean reward {means[0]:.2f} → {means[-1]:.2f}. Nobody wrote an answer: only a score.")


def hacked(now: Facts, began: Facts) -> CheckResult:
    """The mean reward rose while the answers became alike, or the policy moved far away."""
    run, steps = _steps(now)
    if run is None:
        return _no_run(now)
    if not run.group.step.spec.startswith("count:"):
        return missing(f"the rule is {words(run.group.step.spec, 30)}: {{reward_preset}} until it is count:{WORD}")
    if said := hacking(steps):
        example = words(run.group.answers[0].text, 60) if run.group.answers else ""
        return done(f"{said[0].upper()}{said[1:]}. One of them: {example}.")
    if len(steps) >= 30 and not any(step.mean for step in steps):
        return missing(
            f"in {len(steps)} steps no answer had the word: {{models}} opens nano, then {{reward}}, {{reward_preset}}"
        )
    return missing(f"{counted(len(steps), 'step')}, not hacked yet: {{reward_ten}} takes ten more")


def _steps(now: Facts) -> tuple[RewardRun | None, tuple[RewardStep, ...]]:
    """The newest state of the open Reward, unless its newest question failed, and its steps on rules with the word."""
    shown = now.screen == "reward" and RewardQuestion not in now.problems
    run = now.answer(RewardQuestion, RewardRun) if shown else None
    return run, tuple(step for step in run.steps if WORD in step.spec) if run is not None else ()


def _no_run(now: Facts) -> CheckResult:
    """Why `_steps` has no state."""
    if now.screen != "reward":
        return not_yet(now, "no rule rewards the answers", "{reward}")
    return missing(foreign(now.problems[RewardQuestion]) if RewardQuestion in now.problems else WAIT)


def _after(steps: tuple[RewardStep, ...]) -> str:
    return f"{counted(len(steps), 'step')}:"
