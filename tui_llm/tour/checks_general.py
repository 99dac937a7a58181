"""Checks with values of the lesson's own: a text, a target, an answer, a screen, settings, a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tui_llm.common.display import visible_token
from tui_llm.tour.checks_numbers import NOT_LAB, loss_of
from tui_llm.tour.checks_text import WAIT, reading_of_text
from tui_llm.tour.facts import CheckResult, Facts, done, missing, not_yet
from tui_llm.tour.numbers import foreign, many, nats, number, words
from tui_llm.tour.spaces import wrong_space
from tui_llm.tour.step import Check

Values = Mapping[str, Any]


def text(values: Values, _key: str) -> Check:
    """The text of the prompt is as the lesson wants it."""
    exact, contains = values.get("exact"), values.get("contains", ())
    least, most = values.get("tokens", 1), values.get("tokens_most", math.inf)
    changed, not_ascii = values.get("changed", False), values.get("not_ascii", False)

    def check(now: Facts, began: Facts) -> CheckResult:
        if now.screen != "lab":
            return missing(NOT_LAB)
        if (gap := reading_of_text(now)) is not None:
            return gap
        if changed and now.prompt == began.prompt:
            return missing("the text is the same as before: {type} types, {done_typing} ends typing")
        if exact is not None and now.prompt != exact:
            return missing(f"the text is not {words(exact, 60)} yet{_difference(now.prompt, exact)}: {{type}} types it")
        absent = [one for one in contains if one not in now.prompt]
        if absent:
            return missing(f"{words(absent[0], 60)} is not in the text yet: {{type}} types it")
        if now.count < least:
            return missing(f"the text has {many(now.count, 'token')} of at least {least:,}: {{type}} types more")
        if now.count > most:
            return missing(f"the text is {many(now.count, 'token')}, at most {most:,} are wanted")
        if not_ascii and now.prompt.isascii():
            return missing("every character of the text is ASCII: {type} types another one")
        return done(f"{words(now.prompt, 60)} is {many(now.count, 'token')} for this model.")

    return check


def _difference(found: str, wanted: str) -> str:
    """Names a difference in spaces, which is hard to see."""
    if found.split() == wanted.split():
        return f" (its spaces differ: it is “{foreign(visible_token(found), 60)}”)"
    return ""


def answer(values: Values, key: str) -> Check:
    """The learner has answered the part's question with one of the accepted answers, or any if none is named."""
    accepted, within = values.get("answers", ()), values.get("within", 0)

    def right(typed: str) -> bool:
        given = number(typed)
        for one in accepted:
            if isinstance(one, str):
                if " ".join(typed.casefold().split()) == " ".join(one.casefold().split()):
                    return True
            elif given is not None and math.isclose(given, one, rel_tol=1e-9, abs_tol=within + 1e-12):
                return True
        return not accepted

    def check(now: Facts, _began: Facts) -> CheckResult:
        typed = now.typed.get(key)
        if typed is None:
            return missing("no answer yet: {tour_answer} answers")
        if not typed.strip():
            return missing("the answer is empty: {tour_answer} again")
        if not right(typed):
            hint = values.get("hint", "")
            return missing(f"{words(typed, 40)} is not right: {hint + ': ' if hint else ''}{{tour_answer}} again")
        return done(f"{words(typed, 40)} is right." if accepted else f"Your answer: {words(typed, 40)}.")

    return check


def screen(values: Values, _key: str) -> Check:
    """The screen with that name is open, in the view with that name."""
    name, view, keys = values["screen"], values.get("view", ""), values.get("keys", "")

    def check(now: Facts, _began: Facts) -> CheckResult:
        if now.screen != name:
            return not_yet(now, f"the screen “{name}” is not open", keys or "see the keys above")
        if view and now.view != view:
            return missing(f"the view “{view}” is not shown{': ' + keys if keys else ''}")
        if now.asking:
            return missing("a window is open: answer it, or Esc cancels")
        return done(f"The screen “{name}” is open.")

    return check


def pane(values: Values, _key: str) -> Check:
    """The pane with that name has the focus, and the token view with that name is shown."""
    name, view = values["pane"], values.get("view", "")

    def check(now: Facts, _began: Facts) -> CheckResult:
        if now.screen != "lab" or now.typing or now.place != name:
            return not_yet(now, f"the focus is not on the pane “{name}”", f"{{pane_{name}}}")
        if view and now.token_view != view:
            return missing(f"the Tokens pane does not show {view} yet: {{token_view}}")
        return done(f"The Tokens pane shows {view}." if view else f"The focus is on the pane “{name}”.")

    return check


def target(values: Values, _key: str) -> Check:
    """The loss is measured on the target that the lesson wants."""
    wanted, least, most = values.get("target"), values.get("loss_least"), values.get("loss_most")

    def check(now: Facts, _began: Facts) -> CheckResult:
        found = loss_of(now)
        if isinstance(found, CheckResult):
            return found
        if (wrong := wrong_space(now)) and wanted != found.text:
            return missing(wrong)
        if wanted is not None and found.text != wanted:
            return missing(
                f"the target is “{foreign(visible_token(found.text), 40)}”, not “{foreign(visible_token(wanted), 40)}” "
                "(· is a space): {target} types it"
            )
        if least is not None and found.sum < least:
            return missing(
                f"its loss is {nats(found.sum)} nats, at least {least:g} is wanted: {{target}} types another"
            )
        if most is not None and found.sum > most:
            return missing(f"its loss is {nats(found.sum)} nats, at most {most:g} is wanted: {{target}} types another")
        each = f" in {many(len(found.tokens), 'token')}, summed" if len(found.tokens) > 1 else ""
        return done(f"The loss on “{foreign(visible_token(found.text), 40)}” is {nats(found.sum)} nats{each}.")

    return check


def sampler(values: Values, _key: str) -> Check:
    """The sampler is set as the lesson wants it."""
    temperature, top_p = values.get("temperature"), values.get("top_p")

    def check(now: Facts, _began: Facts) -> CheckResult:
        if now.screen != "lab" or now.typing:
            return not_yet(now, "the sampler is set in the panes", "{pane_generate}")
        if temperature is not None and not math.isclose(now.sampler.temperature, temperature, abs_tol=1e-9):
            way = "{cooler}" if now.sampler.temperature > temperature else "{warmer}"
            return missing(f"T is {now.sampler.temperature:g}: {way} to {temperature:g}")
        if top_p is not None and not math.isclose(now.sampler.top_p, top_p, abs_tol=1e-9):
            way = "{top_p_down}" if now.sampler.top_p > top_p else "{top_p_up}"
            return missing(f"top-p is {now.sampler.top_p:g}: {way} to {top_p:g}")
        return done(f"T is {now.sampler.temperature:g}, top-p {now.sampler.top_p:g}.")

    return check


def generated(values: Values, _key: str) -> Check:
    """At least that many tokens were generated."""
    least = values.get("tokens", 1)

    def check(now: Facts, _began: Facts) -> CheckResult:
        if len(now.steps) < least:
            what = f"{len(now.steps)} of {many(least, 'generated token')}"
            return not_yet(now, what, "{pane_generate} {draw} draws one, {stream} many")
        written = "".join(step.text for step in now.steps)
        return done(f"{many(len(now.steps), 'token')}: {words(written, 60)}.")

    return check


def run(values: Values, _key: str) -> Check:
    """The watched run has come that far."""
    least, below, ended = values.get("steps", 1), values.get("loss_below"), values.get("ended", False)

    def check(now: Facts, _began: Facts) -> CheckResult:
        found = now.run
        if found is None:
            return missing("no run is watched: {pane_training} {new_run}")
        name = words(found.name)
        if found.state in ("failed", "died"):
            return missing(f"run {name} {found.state}; start another: {{pane_training}} {{new_run}}")
        over = "" if found.alive else "; it has ended: {new_run} starts another"
        if found.step < least:
            return missing(f"run {name} is at step {found.step:,} of at least {least:,}{over}")
        if found.loss is None:
            return missing(f"the first evaluation of run {name} is still to come" if found.alive else WAIT + over)
        if below is not None and found.loss >= below:
            return missing(f"the validation loss of run {name} is {nats(found.loss)}, to be below {below:g}{over}")
        if ended and found.alive:
            return missing(f"run {name} is at step {found.step:,} of {found.steps:,}")
        return done(f"Run {name}, step {found.step:,}: validation loss {nats(found.loss)} nats per token.")

    return check
