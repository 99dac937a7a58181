"""Checks on numbers: from logits to probabilities, the loss, one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tui_llm.common.errors import UserError
from tui_llm.common.numbers import adding, p_equals, precise_percent
from tui_llm.facts.prediction import Candidate, LossReading
from tui_llm.instruments.gradient.question import Gradient, GradientQuestion
from tui_llm.instruments.learn.question import CandidateChange, Learned, LearnQuestion
from tui_llm.instruments.scratch.question import Scratch, ScratchQuestion, parse, split
from tui_llm.tour.checks_text import WAIT, reading_of_text
from tui_llm.tour.facts import CheckResult, Facts, done, missing, not_yet
from tui_llm.tour.numbers import LOGITS, foreign, loss, nats, shares, softmax, typed_logits, words
from tui_llm.tour.spaces import wrong_space

GOOD, TERRIBLE = softmax(list(LOGITS.values()))[0], 0.01  # probabilities
NOT_LAB = "go back to the panes: Esc"


def staged(now: Facts, began: Facts) -> CheckResult:
    """The logits table shows the stages of softmax, at temperature 1 and top-p 1."""
    if now.screen != "lab":
        return missing(NOT_LAB)
    if (gap := reading_of_text(now)) is not None:
        return gap
    distribution = now.reading.distribution if now.reading is not None else None
    if distribution is None or not distribution.candidates:
        return missing("nothing is predicted; {type} and type some text")
    if now.reading is not None and now.reading.request.position is not None:
        return missing("the token cursor is inside the text: Esc puts it at the end")
    if now.sampler.temperature != 1:
        way = "{cooler}" if now.sampler.temperature > 1 else "{warmer}"
        return missing(f"T is {now.sampler.temperature:g}; {way} to 1")
    if now.sampler.top_p < 1:
        return missing(f"top-p is {now.sampler.top_p:g}; {{top_p_up}} to 1")
    if not now.stage:
        return missing("the table shows no stages yet: {pane_logits} {stages}")
    first = distribution.candidates[0]
    return done(
        f"{words(first.text)}: logit {first.logit:.2f}, e^logit {first.exp_logit:.4g}, ÷ the sum over all {distribution.vocabulary:,} tokens "
        f"= {precise_percent(first.raw_probability)}. A logit is a score; softmax turns scores into probabilities."
    )


def rows(now: Facts) -> tuple[Candidate, ...]:
    """Returns the rows of the scratch table."""
    found = now.answer(ScratchQuestion, Scratch)
    return found.distribution.candidates if found is not None else ()


def _before(began: Facts) -> dict[str, tuple[float, float]]:
    """Logit and raw p of each token in the scratch table when the part began: its rows or, while none were computed since
    the tour was opened, the typed text."""
    if found := rows(began):
        return {row.text: (row.logit, row.raw_probability) for row in found}
    try:
        typed = parse(split(began.scratch))
    except UserError:
        return {}
    logits = [logit for _, logit in typed]
    if not all(map(math.isfinite, logits)):
        return {}
    return {name: (logit, p) for (name, logit), p in zip(typed, softmax(logits), strict=True)}


def own_logits(now: Facts, began: Facts) -> CheckResult:
    """The scratch table has at least two tokens."""
    if now.screen != "scratch":
        return not_yet(now, "the scratch table is not open", "{scratch}")
    if ScratchQuestion in now.problems:
        return missing(foreign(now.problems[ScratchQuestion]))
    found = rows(now)
    if len(found) < 2:
        return missing("type at least two tokens, each as TOKEN=LOGIT")
    raw = [row.raw_probability for row in found]
    listed = ", ".join(f"{words(row.text, 12)} {precise_percent(row.raw_probability)}" for row in found[:3])
    others = f" The tutorial's {typed_logits(LOGITS)}: {shares(softmax(list(LOGITS.values())))}."
    given = {row.text: row.logit for row in found}
    same = given.keys() == LOGITS.keys() and all(abs(given[name] - LOGITS[name]) < 1e-6 for name in LOGITS)
    return done(f"Raw p: {listed}; the column sums to {precise_percent(sum(raw))}.{'' if same else others}")


def changed_logit(now: Facts, began: Facts) -> CheckResult:
    """A logit in the scratch table was changed."""
    if now.screen != "scratch":
        return not_yet(now, "the scratch table is not open", "{scratch}")
    if ScratchQuestion in now.problems:
        return missing(foreign(now.problems[ScratchQuestion]))
    found, before = rows(now), _before(began)
    if now.typing:
        return missing("Esc or Enter ends typing")
    # A row's logit is a float32: it is not quite the typed number.
    changed = [
        row for row in found if row.text in before and not math.isclose(row.logit, before[row.text][0], rel_tol=1e-6)
    ]
    if not changed:
        return missing("no logit has changed yet: {type_scratch} types one")
    row = changed[0]
    return done(
        f"{words(row.text, 12)} went from raw p {precise_percent(before[row.text][1])} to {precise_percent(row.raw_probability)}, and all others "
        f"moved with it: the column raw p still sums to {precise_percent(sum(row.raw_probability for row in found))}."
    )


def loss_of(now: Facts) -> LossReading | CheckResult:
    """Returns the loss of the current target, else the outcome that asks for a target."""
    if now.screen != "lab":
        return missing(NOT_LAB)
    if (gap := reading_of_text(now)) is not None:
        return gap
    found = now.reading.loss if now.reading is not None else None
    if found is None or found.problem or not found.tokens:
        return missing("there is no target; {target} types one")
    return found


def likely_target(now: Facts, began: Facts) -> CheckResult:
    """The target is the most probable token, and the Loss pane is open."""
    found = loss_of(now)
    if isinstance(found, CheckResult):
        return found
    first = found.tokens[0].loss
    if first.rank > 1 or len(found.tokens) > 1:
        return missing(
            f"the target {words(found.text)} is not the likeliest token (rank {first.rank:,}): {{pane_logits}}, ↑ to the first row, {{pick}}"
        )
    if now.place != "loss":
        return missing("that is the target now; {pane_loss} shows its loss")
    return done(
        f"{p_equals(first.probability)}, loss −ln p = {nats(first.nats)} nats. With more confidence: {precise_percent(GOOD)} would be "
        f"{nats(loss(GOOD))}, {precise_percent(1.0)} would be {nats(abs(loss(1.0)))}."
    )


def unlikely_target(now: Facts, began: Facts) -> CheckResult:
    """The target's loss is at least that of probability `TERRIBLE`."""
    found = loss_of(now)
    if isinstance(found, CheckResult):
        return found
    if wrong := wrong_space(now):
        return missing(wrong)
    target = max(found.tokens, key=lambda target: target.loss.nats)
    worst = target.loss
    if worst.nats < loss(TERRIBLE):
        return missing(
            f"the loss is {nats(worst.nats)}; it is terrible from {nats(loss(TERRIBLE))} on (p at most {precise_percent(TERRIBLE)}): {{target}} types a less fitting word"
        )
    than = "more" if worst.nats > found.uniform_loss else "less"
    return done(
        f"{words(target.token.text, 14)}, {p_equals(worst.probability)}, has a loss of {nats(worst.nats)} nats; at {precise_percent(TERRIBLE)} it is {nats(loss(TERRIBLE))}. "
        f"That is {than} than ln V = {nats(found.uniform_loss)}, the loss of a uniform guess over the V tokens."
    )


def gradient_seen(now: Facts, began: Facts) -> CheckResult:
    """The gradient's bars are shown."""
    found = now.answer(GradientQuestion, Gradient)
    if now.screen != "lab":
        return missing(NOT_LAB)
    if found is None or found is began.answers.get(GradientQuestion):
        return not_yet(now, "the bars are not there yet", "{pane_loss} {gradient}")
    own = next((row for row in found.rows if row.target), None)
    other = next((row for row in found.rows if not row.target), None)
    if own is None or other is None:
        return missing(WAIT)
    values = [row.gradient for row in found.rows] + ([found.rest] if found.rest_count else [])
    shown, total = adding(values, 0.0, 3)  # as the pane rounds them
    down, up = (shown[found.rows.index(row)] for row in (own, other))
    return done(
        f"p − y: {down} for the target {words(own.token.text, 14)}, {up} for {words(other.token.text, 14)}, "
        f"the sum over all tokens {total}. The loss falls if the target's logit rises and the others fall. A step changes weights that all logits share, so "
        "similar tokens can rise with the target: Learn shows it."
    )


def pinned(now: Facts, began: Facts) -> CheckResult:
    if not now.pins:
        return not_yet(now, "nothing is pinned", "{pin}")
    return done("Pinned. After the next step you see how it changed.")


def learned(now: Facts, began: Facts) -> CheckResult:
    """A step of Learn this was taken on another text."""
    if now.screen != "learn":
        if (gap := reading_of_text(now)) is not None:
            return gap
        if now.prompt == began.prompt:
            return missing("the text has not changed, so nothing can be forgotten: {type} another sentence")
        if wrong := wrong_space(now):
            return missing(wrong)
        return not_yet(now, "Learn this is not open", "{pane_loss} {learn}")
    if now.prompt == began.prompt:
        return missing("the text has not changed, so nothing can be forgotten: Esc, {type} another sentence")
    if LearnQuestion in now.problems:
        return missing(foreign(now.problems[LearnQuestion]))
    found = now.answer(LearnQuestion, Learned)
    if found is None or not found.steps:
        return missing("no step was taken yet: {learn_step}")
    return done(learned_words(found))


def learned_words(found: Learned) -> str:
    before, after = found.before, found.after
    parts = [
        f"One step: loss {nats(before.loss)} → {nats(after.loss)}" if len(found.steps) == 1 else
        f"{len(found.steps)} steps: loss {nats(before.loss)} → {nats(after.loss)}",
        f"p {precise_percent(before.probability)} → {precise_percent(after.probability)}",
    ]  # fmt: skip
    fell = most_changed([row for row in found.candidates if not row.target and row.after < row.before])
    if fell is not None:
        parts.append(
            f"{words(fell.token.text, 12)} fell {precise_percent(fell.before)} → {precise_percent(fell.after)}"
        )
    lost = next((one for one in found.pins if one.loss_before is not None and one.loss_after is not None), None)
    if lost is not None and lost.loss_before is not None and lost.loss_after is not None:
        way = "forgotten a little" if lost.loss_after > lost.loss_before else "not forgotten"
        parts.append(f"the pinned text: {nats(lost.loss_before)} → {nats(lost.loss_after)}, {way}")
    return "; ".join(parts) + "."


def most_changed(found: Sequence[CandidateChange]) -> CandidateChange | None:
    return max(found, key=lambda row: abs(row.after - row.before), default=None)


def undone(now: Facts, began: Facts) -> CheckResult:
    """The steps of Learn this were undone."""
    found = now.answer(LearnQuestion, Learned)
    if found is None or found.steps:
        return missing("the copy still has a step: {learn_undo}, or {learn_reset}")
    return done(f"Loss {nats(found.after.loss)} again, exactly: undoing restored the weights of the copy.")
