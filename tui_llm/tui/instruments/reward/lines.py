"""Reward as lines: the curves over the steps, and the answers with their rewards and what the step changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from tui_llm.common.display import fit, visible
from tui_llm.common.numbers import counted
from tui_llm.facts.policy import ADVANTAGES, AVERAGES, PolicyRecipe, PolicySettings, at_temperature
from tui_llm.instruments.reward.question import RewardGroup, RewardRun, RewardStep, ScoredAnswer, hacking
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.columns import columns
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import beside, wrapped
from tui_llm.tui.kit.token_changes import MOVED, Styles, changed_tokens, flow

BESIDE = 64  # cells from which reward and text, and the two curves, stand side by side
NUMBERS = 24  # cells of reward, advantage and change


class RewardLines:
    def __init__(self, style: Styles) -> None:
        self.style = style

    # ── the curves ───────────────────────────────────────────────────────────────────────────────────────────────

    def curves(self, steps: Sequence[RewardStep], width: int, height: int) -> list[Text]:
        """Mean reward, KL and distinct answers over the steps."""
        if not steps:
            return []
        last = steps[-1]
        means = [step.mean for step in steps if step.mean is not None]
        kls = [step.kl for step in steps]
        wide = width >= BESIDE
        half = (width - 2) // 2 if wide else width
        one = self._curve("mean reward", means, half, height, "bar", 1.0) if means else []
        two = self._curve("KL, nats a token", kls, half, height, "accent", 0.1)
        lines = beside((one, two), half) if wide else [*one, *two]
        text = f"distinct answers {steps[0].distinct} → {last.distinct} of {last.recipe.samples} · different tokens {steps[0].variety:.0%} → {last.variety:.0%}"
        lines += wrapped(Text(text, self.style("muted")), width)
        if note := hacking(steps):
            lines += wrapped(Text(f"! {note}", self.style("bad")), width)
        return lines

    def _curve(
        self, name: str, values: Sequence[float], width: int, height: int, style: str, least: float
    ) -> list[Text]:
        title = Text(name, self.style("strong"), no_wrap=True)
        title.append(f"  {fmt.number(values[0], 3)} → {fmt.number(values[-1], 3)}", "not bold")
        highest = Text(f"  highest {fmt.number(max(values), 3)}", self.style("muted"))
        if title.cell_len + highest.cell_len <= width:
            title.append_text(highest)
        title.truncate(width)
        return [title, *(Text(line, self.style(style), no_wrap=True) for line in columns(values, width, height, least))]

    # ── the group ────────────────────────────────────────────────────────────────────────────────────────────────

    def group(self, group: RewardGroup, scores: Sequence[float | None], width: int, marked: int, numbers: bool) -> tuple[list[Text], list[int]]:  # fmt: skip
        """The answers, and the index of each one's first line. `scores` take the place of rewards that are missing."""
        wide = width >= BESIDE
        bar = max(4, min(16, width // 10))
        left = 4 + bar + NUMBERS if wide else width
        lines, starts = [self._head(bar, width, at_temperature(group.step.recipe.policy.temperature))], []
        rewards = [score if answer.reward is None else answer.reward for answer, score in zip(group.answers, scores, strict=True)]  # fmt: skip
        largest = max((abs(value) for value in rewards if value is not None), default=0.0) or 1.0
        for at, (answer, value) in enumerate(zip(group.answers, rewards, strict=True)):
            starts.append(len(lines))
            facts = self._facts(answer, value, largest, bar, at, at == marked)
            text = self._text(answer, max(4, width - left - 1) if wide else width, numbers)
            lines += beside(([facts], text), left, 1) if wide else [facts, *text]
        return lines, starts

    def _head(self, bar: int, width: int, drawn: str) -> Text:
        of = f" (ln p{drawn})" if drawn else ""
        text = f"    {fit('reward', bar)}{'':>7}{'advantage':>9}{'Δ ln p':>8} answer{of}"
        return Text(fit(text, width).rstrip(), self.style("muted"), no_wrap=True)

    def _facts(self, answer: ScoredAnswer, value: float | None, largest: float, bar: int, at: int, marked: bool) -> Text:  # fmt: skip
        line = Text("▸" if marked else " ", self.style("accent"), no_wrap=True)
        line.append(f"{at + 1:<3}", self.style("muted"))
        fraction = 0.0 if value is None else abs(value) / largest
        line.append(fmt.bar(fraction, bar), self.style("bar" if value is None or value >= 0 else "bad"))
        line.append(("–" if value is None else fmt.compact(value)).rjust(7), self.style("strong"))
        advantage = answer.advantage
        sign = "good" if (advantage or 0) > 0 else "bad" if (advantage or 0) < 0 else "muted"
        line.append(("–" if advantage is None else fmt.signed(advantage)).rjust(9), self.style(sign))
        change = answer.change
        sign = "good" if (change or 0) > 0 else "bad" if (change or 0) < 0 else "muted"
        return line.append(("" if change is None else fmt.signed(change)).rjust(8), self.style(sign))

    def _text(self, answer: ScoredAnswer, width: int, numbers: bool) -> list[Text]:
        if answer.after:
            logs = zip(answer.before, answer.after, strict=True)
            return changed_tokens(answer.tokens, logs, width, self.style, numbers=numbers) or [Text()]
        parts = []
        for token, log in zip(answer.tokens, answer.before, strict=True):
            number = f" {fmt.number(log)}" if numbers else ""
            parts.append(Text(visible(token.text) + number, "default", no_wrap=numbers))
        return flow(parts, width, numbers=numbers) or [Text()]

    # ── words ────────────────────────────────────────────────────────────────────────────────────────────────────

    def about(self, step: RewardStep, ahead: bool, width: int) -> list[Text]:
        """A line that says what the answers below are."""
        if ahead:
            text = f"step {step.number}: drawn, not learned yet"
        elif step.why_not:
            return wrapped(Text(f"! step {step.number}: {step.why_not}", self.style("bad")), width)
        else:
            text = f"step {step.number}, learned: ▲ ▼ tokens pushed up and down by more than {MOVED:g} nats"
            text += f" · loss {fmt.number(step.loss, 4)} · gradient {fmt.compact(step.gradient_norm)}"
            if step.recipe.updates > 1:
                text += f" · clipped {step.clipped:.0%}"
        return wrapped(Text(text, self.style("accent")), width)

    def biases(self, policy: PolicySettings, width: int) -> list[Text]:
        muted = self.style("muted")
        lines = []
        for key, name, chosen, known in (("a", "advantage", policy.advantage, ADVANTAGES), ("l", "average", policy.average, AVERAGES)):  # fmt: skip
            line = (
                Text(f"{key} {name} ", muted).append(chosen, self.style("strong")).append(f": {known[chosen]}", muted)
            )
            lines += wrapped(line, width)
        return lines


def recipe_line(recipe: PolicyRecipe, seed: int) -> str:
    """The settings in one line."""
    policy = recipe.policy
    updates = "" if recipe.updates == 1 else f" · {counted(recipe.updates, 'update')}, clip {policy.clip:g}"
    return (
        f"{recipe.samples} answers × {counted(recipe.tokens, 'token')} · T {policy.temperature:g} · learning rate "
        f"{recipe.learning_rate:g} · β {policy.beta:g} · {policy.advantage}, {policy.average}{updates} · seed {seed}"
    )


def rows(run: RewardRun) -> Iterator[Row]:
    """All that is shown, section by section, each with its own header."""
    yield "step", "rule", "mean reward", "deviation", "KL", "distinct answers", "distinct tokens", "loss", "learned"
    for step in run.steps:
        numbers = ("" if value is None else repr(value) for value in (step.mean, step.deviation, step.kl))
        rest = str(step.distinct), repr(step.variety), repr(step.loss), str(step.learned).lower()
        yield str(step.number), visible(step.spec), *numbers, *rest
    yield "answer", "seed", "reward", "advantage", "text"
    for number, one in enumerate(run.group.answers, 1):
        reward, advantage = ("" if value is None else repr(value) for value in (one.reward, one.advantage))
        yield str(number), str(one.seed), reward, advantage, visible(one.text)
    drawn = at_temperature(run.group.step.recipe.policy.temperature)
    yield "answer", "id", "token", f"ln p{drawn} before", f"ln p{drawn} after"
    for number, one in enumerate(run.group.answers, 1):
        after = [repr(value) for value in one.after] or [""] * len(one.tokens)
        for token, before, later in zip(one.tokens, one.before, after, strict=True):
            yield str(number), str(token.id), visible(token.text), repr(before), later
