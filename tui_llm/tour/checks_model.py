"""Checks on the model: the training loop, generation, inside the model, from predictor to assistant."""

from __future__ import annotations

from tui_llm.common.numbers import precise_percent
from tui_llm.facts.interventions import named
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.instruments.ablate.question import AblateQuestion, Ablation
from tui_llm.instruments.attention.question import AttentionMap, AttentionQuestion
from tui_llm.instruments.draws.question import Draw, DrawQuestion, Histogram, HistogramQuestion
from tui_llm.instruments.lens.question import Lens, LensQuestion
from tui_llm.instruments.scratch.question import Scratch, ScratchQuestion
from tui_llm.instruments.sft.question import LEARNED, Instructed, InstructQuestion
from tui_llm.instruments.why.question import Why, WhyQuestion
from tui_llm.instruments.why.sums import logit_sum
from tui_llm.tour.checks_numbers import NOT_LAB
from tui_llm.tour.checks_text import WAIT, reading_of_text
from tui_llm.tour.facts import CheckResult, Facts, RunFacts, done, missing, not_yet
from tui_llm.tour.numbers import COLD, HOT, TABLE, foreign, many, nats, shares, tempered, words

CONTINUED = 8  # tokens of an answer or continuation that suffice
ANSWERED = 2
NEARLY_SURE = 0.95  # above this probability, sampling almost always draws the same token


# ── the training loop ─────────────────────────────────────────────────────────────────────────────────────────────────


def started(now: Facts, began: Facts) -> CheckResult:
    """The learner has started a run in this part."""
    run = now.run
    if run is None:
        return not_yet(now, "there is no run yet", "{pane_training} {new_run}")
    if run.state in ("failed", "died"):
        return missing(f"run {words(run.name)} {run.state}; start another: {{new_run}}")
    if began.run is not None and began.run.name == run.name and not run.alive:
        return missing(f"run {words(run.name)} is from before; start a new one: {{new_run}}")
    return done(f"Run {words(run.name)} is a separate process: it continues when you quit.")


def below(run: RunFacts | None, line: float | None, name: str, why: str) -> CheckResult:
    """The run's validation loss is below `line`, the loss called `name`, in nats per token."""
    if run is None:
        return missing("no run is watched: {pane_training} {new_run}")
    if run.state in ("failed", "died"):
        return missing(f"run {words(run.name)} {run.state}; start another: {{new_run}}")
    if line is None or run.loss is None:
        return missing(f"step {run.step:,} of {run.steps:,}; the first evaluation is still to come")
    if run.loss >= line:
        over = "" if run.alive else "; the run has ended: start one with more steps"
        return missing(
            f"validation loss {nats(run.loss)} at step {run.step:,}, the {name} line is at {nats(line)}{over}"
        )
    when = f"At step {run.sample_step:,}" if run.sample_step else "Untrained"
    wrote = f" {when} it wrote: {words(run.sample, 60)}" if run.sample else ""
    return done(f"Loss {nats(run.loss)}, below the {name} line at {nats(line)}: {why}.{wrote}")


def unigram(now: Facts, began: Facts) -> CheckResult:
    return below(now.run, now.run.unigram if now.run is not None else None, "unigram",
                 "it knows which tokens are frequent, and it uses the token before")  # fmt: skip


def bigram(now: Facts, began: Facts) -> CheckResult:
    return below(now.run, now.run.bigram if now.run is not None else None, "bigram",
                 "it looks further back than one token")  # fmt: skip


def watched(now: Facts, began: Facts) -> CheckResult:
    """The screen "How it learned" is open."""
    if now.screen != "learned":
        return not_yet(now, "How it learned is not open", "{pane_training} {how_it_learned}")
    return done("← and → go through the evaluations: the same prompt, as the model learned.")


# ── generation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def last(now: Facts, began: Facts, temperature: float) -> GeneratedToken | CheckResult:
    """Returns the last token if it was sampled in this part at that temperature, else what is missing."""
    if now.screen != "lab":
        return missing(NOT_LAB)
    if now.typing:
        return missing("you are typing; {done_typing} first")
    if now.place != "generate":
        return missing("{pane_generate} goes to the Generate pane")
    if now.sampler.temperature != temperature:
        way = "{cooler}" if now.sampler.temperature > temperature else "{warmer}"
        return missing(f"T is {now.sampler.temperature:g}; {way} to {temperature:g}")
    if not now.steps or now.steps == began.steps:
        return missing("nothing was drawn yet: {draw}")
    return now.steps[-1]


def greedy(now: Facts, began: Facts) -> CheckResult:
    """A token was generated at temperature 0."""
    token = last(now, began, 0)
    if isinstance(token, CheckResult):
        return token
    if token.by_hand or token.u is not None:
        return missing("draw once more with {draw}")
    return done(
        f"{words(token.text)}: not drawn at random, always the likeliest ({precise_percent(token.raw_probability)}). Undone and drawn again, it is the same."
    )


def cold(now: Facts, began: Facts) -> CheckResult:
    """A token was sampled at the temperature `COLD`."""
    token = last(now, began, COLD)
    if isinstance(token, CheckResult):
        return token
    if token.u is None:
        return missing("the last token was not drawn at this temperature: {draw}")
    return done(
        f"u = {token.u:.4f} fell on {words(token.text)}: {precise_percent(token.raw_probability)} at T 1, {precise_percent(token.probability)} here."
    )


def replayed(now: Facts, began: Facts) -> CheckResult:
    """The draw is replayed with the same u at the temperature `HOT`."""
    found = now.answer(DrawQuestion, Draw)
    if now.screen != "draw":
        if not now.steps:
            return missing("draw a token first: {draw}")
        return not_yet(now, "the draw is not open", "{pane_generate} {show_draw}")
    if DrawQuestion in now.problems:
        return missing(foreign(now.problems[DrawQuestion]))
    if found is None or len(found.landings) < 2:
        return missing(WAIT)
    first, again = found.landings[0], found.landings[1]
    if first.sampler.temperature != COLD:
        return missing(
            f"that token was drawn at T {first.sampler.temperature:g}: {{draw_earlier}} and {{draw_later}} go to the one at {COLD:g}"
        )
    if again.sampler.temperature != HOT:
        way = "{replay_cooler}" if again.sampler.temperature > HOT else "{replay_warmer}"
        return missing(f"the replay is at T {again.sampler.temperature:g}; {way} to {HOT:g}")
    one, other = first.hit.candidate, again.hit.candidate
    hit = "the same token" if one.id == other.id else f"{words(other.text)} instead of {words(one.text)}"
    return done(
        f"The same u = {found.u:.4f}, other probabilities: {hit} ({precise_percent(other.probability)}, rank {again.hit.place + 1:,}). A higher T makes unlikely tokens likelier."
    )


def drawn_often(now: Facts, began: Facts) -> CheckResult:
    """The next token was drawn many times, with a distribution that is not nearly certain."""
    found = now.answer(HistogramQuestion, Histogram)
    if now.screen != "draw_many":
        return not_yet(now, "there are no draws yet", "{pane_generate} {draw_many}")
    if HistogramQuestion in now.problems:
        return missing(foreign(now.problems[HistogramQuestion]))
    if found is None or not found.rows:
        return missing(WAIT)
    candidate, bar = found.rows[0]
    if candidate.probability > NEARLY_SURE:
        return missing(f"{words(candidate.text)} is drawn nearly always: {{many_warmer}} draws at a higher temperature")
    return done(
        f"Of {found.count:,} draws {bar.count:,} were {words(candidate.text)}; p × {found.count:,} is {bar.expected:,.1f}, give or take {bar.deviation:.1f}. "
        "That is what a probability means here."
    )


def nucleus(now: Facts, began: Facts) -> CheckResult:
    """Top-p was lowered."""
    distribution = now.reading.distribution if now.reading is not None else None
    if now.screen != "lab":
        return missing(NOT_LAB)
    if now.sampler.top_p >= began.sampler.top_p:
        return missing(f"top-p is {now.sampler.top_p:g}; {{top_p_down}} lowers it")
    if distribution is None:
        return missing(WAIT)
    if now.sampler.greedy:
        return missing("at T 0 only the likeliest token is left, so top-p cuts nothing: {warmer} raises T")
    column = "raw p" if now.sampler.temperature == 1 else f"p(T={now.sampler.temperature:g})"  # as in the table
    column = column if now.sampler.repetition_penalty == 1 else "p uncut"
    return done(
        f"Top-p {now.sampler.top_p:g} keeps {distribution.kept:,} of {distribution.vocabulary:,} tokens; their {column} sums to {precise_percent(distribution.kept_mass)}. "
        "Renormalizing divides it by that sum: the column p sums to 100 %."
    )


def table_words() -> str:
    chances = list(TABLE.values())
    return f"{shares(chances)} becomes {shares(tempered(chances, COLD))} at T {COLD:g} and {shares(tempered(chances, HOT))} at T {HOT:g}"


def table(now: Facts, began: Facts) -> CheckResult:
    """The learner's own logits are shown at several temperatures."""
    found = now.answer(ScratchQuestion, Scratch)
    if now.screen != "temperatures":
        if now.screen == "scratch":
            return missing("the temperatures are not side by side yet: type your logits, Esc, {scratch_temperatures}")
        return not_yet(
            now, "the temperatures are not side by side yet", "{scratch}, type your logits, Esc, {scratch_temperatures}"
        )
    if ScratchQuestion in now.problems:
        return missing(foreign(now.problems[ScratchQuestion]))
    if found is None or found.temperatures is None:
        return missing("these are not your own logits: Esc, then {scratch} and {scratch_temperatures}")
    columns = ", ".join(
        f"T {column.temperature:g}: {shares(column.probabilities[:4])}" for column in found.temperatures.columns[:3]
    )
    chances = list(TABLE.values())
    same = shares(tempered(chances, COLD)) in columns and shares(tempered(chances, HOT)) in columns
    tutorial = "" if same else f" By the same formula {table_words()}."
    return done(f"{columns}.{tutorial} The order stays the same, only the probabilities change.")


# ── inside the model ──────────────────────────────────────────────────────────────────────────────────────────────────


def attended(now: Facts, began: Facts) -> CheckResult:
    """The attention view is open."""
    found = now.answer(AttentionQuestion, AttentionMap)
    if now.screen != "inside" or now.view != "attention":
        return (
            missing("attention is not shown: {inside_attention}")
            if now.screen == "inside"
            else not_yet(now, "attention is not open", "{inside}")
        )
    if AttentionQuestion in now.problems:
        return missing(foreign(now.problems[AttentionQuestion]))
    if found is None:
        return missing(WAIT)
    row, place = found.mean, found.place
    at = min(row.strongest, len(row.weights) - 1)
    seen = place.tokens[at]
    return done(
        f"From {words(place.token.text)}, the mean of all {len(found.heads)} × {len(found.heads[0])} heads attends most to "
        f"{words(seen.text)} ({precise_percent(row.weights[at])}). Attention is a hint, not a proof."
    )


def lensed(now: Facts, began: Facts) -> CheckResult:
    """The logit lens is open."""
    found = now.answer(LensQuestion, Lens)
    if now.screen != "inside" or now.view != "lens":
        return (
            missing("the lens is not shown: {inside_lens}")
            if now.screen == "inside"
            else not_yet(now, "the lens is not open", "{inside}, then {inside_lens}")
        )
    if LensQuestion in now.problems:
        return missing(foreign(now.problems[LensQuestion]))
    if found is None:
        return missing(WAIT)
    guesses = [row.guesses[0] for row in found.rows if row.guesses]
    path = " → ".join(words(guess.token.text, 12) for guess in guesses)
    sure = (
        f", with {precise_percent(guesses[0].probability)} at first and {precise_percent(guesses[-1].probability)} at the end"
        if guesses
        else ""
    )
    return done(f"Likeliest from the embedding on, layer by layer: {path}{sure}.")


def attributed(now: Facts, began: Facts) -> CheckResult:
    """The parts of a token's logit are listed."""
    found = now.answer(WhyQuestion, Why)
    if now.screen != "why":
        return not_yet(now, "Why this token is not open", "{why}")
    if WhyQuestion in now.problems:
        return missing(foreign(now.problems[WhyQuestion]))
    if found is None:
        return missing(WAIT)
    made = logit_sum(found)  # as the screen prints it
    largest = made.lines[0]
    return done(
        f"Logit of {words(found.target.text)} − logit of {words(found.rival.text)} = {made.signed(made.total.difference)}; the largest "
        f"part of it is {words(largest.name)}: {made.signed(largest.difference)}. What later parts make of it, a sum does not say."
    )


def switched_off(now: Facts, began: Facts) -> CheckResult:
    """A part of the model is switched off, or changed."""
    if AblateQuestion in now.problems:
        return missing(foreign(now.problems[AblateQuestion]))
    off = now.reading.request.interventions if now.reading is not None else ()
    if not off:
        if now.screen == "ablate":
            return missing("every part is on: the arrows choose one, {ablate_switch} switches it off")
        return not_yet(now, "every part is on", "{ablate_open}, then {ablate_switch}")
    found = now.answer(AblateQuestion, Ablation)
    if found is None or found.interventions != off:
        return done(f"{words(named(off), 60)}.")
    target = words("".join(token.text for token in found.target))
    return done(
        f"With {words(named(off), 60)} the loss of {target} goes from {nats(found.before.loss)} to {nats(found.after.loss)}: "
        "that is a cause, in this text."
    )


def switched_on(now: Facts, began: Facts) -> CheckResult:
    """Every part of the model is on."""
    if now.reading is None:
        return missing(WAIT)
    if now.reading.request.interventions:
        return not_yet(now, "parts are still off", "{parts_on}")
    return done("Every part is on: the numbers are the model's own again.")


def one_word_changed(before: str, after: str) -> bool:
    old, new = before.split(), after.split()
    return len(old) == len(new) and sum(one != other for one, other in zip(old, new, strict=True)) == 1


def decided(now: Facts, began: Facts) -> CheckResult:
    """Exactly one word of the prompt was changed."""
    if now.screen != "lab":
        return missing(NOT_LAB)
    if (gap := reading_of_text(now)) is not None:
        return gap
    if now.prompt == began.prompt and now.steps == began.steps:
        return missing("the text is the same as before: {type}, change one earlier word, {done_typing}")
    if not one_word_changed(began.prompt, now.prompt):
        return missing("change one word and nothing else, so that nothing else can be the cause ({undo} undoes)")
    old = began.reading.distribution if began.reading is not None else None
    new = now.reading.distribution if now.reading is not None else None
    if old is None or new is None or not old.candidates or not new.candidates:
        return missing("nothing is predicted; type some text")
    top = old.candidates[0]
    after = next((row for row in new.candidates if row.id == top.id), None)
    now_is = precise_percent(after.raw_probability) if after is not None else "no longer among the first"
    return done(
        f"{words(top.text)} was likeliest with {precise_percent(top.raw_probability)}, now {now_is}; likeliest now: {words(new.candidates[0].text)} "
        f"({precise_percent(new.candidates[0].raw_probability)}). Changing a word proves what attention only hints at."
    )


# ── from predictor to assistant ──────────────────────────────────────────────────────────────────────────────────


def continued(now: Facts, began: Facts) -> CheckResult:
    """At temperature 0, the model has continued a question."""
    if now.screen != "lab":
        return missing(NOT_LAB)
    if now.typing:
        return missing("you are typing; {done_typing} when the question is there")
    if "?" not in now.prompt:
        return missing("the text has no question mark: {type} a question")
    if not now.sampler.greedy:
        return missing(
            f"T is {now.sampler.temperature:g}; {{cooler}} to 0, so that chance plays no part in before and after"
        )
    if len(now.steps) < CONTINUED:
        return missing(f"{len(now.steps)} of {CONTINUED} tokens: {{stream}} lets it write")
    text = "".join(token.text for token in now.steps)
    return done(f"It continued: {words(text, 60)}. It predicts text; nobody taught it to answer questions.")


def tuned(now: Facts, began: Facts) -> CheckResult:
    """The model was fine-tuned on the learner's pairs."""
    if InstructQuestion in now.problems:
        return missing(f"{foreign(now.problems[InstructQuestion])}. {{tour_answer}} again")
    found = now.answer(InstructQuestion, Instructed)
    if "instruct" in now.typed and found is None:
        return missing("it is learning your pairs (some seconds); {tour} stops it")
    if found is None:
        return missing("no pairs yet")
    return done(
        f"{len(found.losses)} steps on {many(len(found.question.pairs), 'pair')}; loss on the {found.answer_tokens} answer tokens alone (of {found.tokens}): "
        f"{nats(found.before)} → {nats(found.after)}. The result is a new model, {words(found.name)}, and it is open now."
    )


def answers(now: Facts, began: Facts) -> CheckResult:
    """The fine-tuned model has answered."""
    found = now.answer(InstructQuestion, Instructed)
    if found is not None and now.model != found.name:
        return missing(f"the model {words(found.name)} is not open: {{models}}")
    if now.screen != "lab":
        return missing(NOT_LAB)
    if now.typing:
        return missing("you are typing; {done_typing} first")
    if len(now.steps) < ANSWERED or now.streaming:
        return missing("let it write: {clear} removes the old tokens, {stream} writes")
    text = "".join(token.text for token in now.steps).strip()
    if found is not None and found.after > LEARNED:
        return done(
            f"Now: {words(text, 60)}. The loss on the answers is still {nats(found.after)}, so it has not learned them: fewer or shorter pairs, or a larger model, would."
        )
    return done(
        f"Now: {words(text, 60)}. Same network, same loss, other examples. Ask what is in none of your pairs, and it repeats an answer it knows."
    )
