"""Prefer as lines: the two answers, what the last choice changed, and the curves over all choices."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from tui_llm.common.display import fit, visible, visible_token
from tui_llm.common.numbers import adding, counted
from tui_llm.facts.preference import DPOSettings, PairChange
from tui_llm.facts.tokens import Token
from tui_llm.instruments.prefer.question import Preferred, PreferredAnswer
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit import token_shades as shades
from tui_llm.tui.kit.columns import spark
from tui_llm.tui.kit.text import beside, packed, wrapped
from tui_llm.tui.kit.token_changes import MOVED, Styles, changed_tokens, flow

BESIDE = 64  # cells from which the answers stand side by side
NUMBER = 11  # cells of a column of numbers


def both(one: Sequence[Text], two: Sequence[Text], width: int) -> list[Text]:
    """Side by side where there is room, else one after the other."""
    return beside((one, two), column(width)) if width >= BESIDE else [*one, Text(), *two]


def column(width: int) -> int:
    """The width of one answer."""
    return (width - 2) // 2 if width >= BESIDE else width


def moved(before: float, after: float, digits: int) -> tuple[str, str, str]:
    """Before, after and the change as texts; the printed numbers add up."""
    (later, negated), change = adding([after, -before], after - before, digits)
    earlier = negated[1:] if negated.startswith("−") else f"−{negated}" if before < 0 else negated
    return earlier, later, change if change.startswith("−") else f"+{change}"


class PreferLines:
    def __init__(self, style: Styles) -> None:
        self.style = style

    # ── the answers ──────────────────────────────────────────────────────────────────────────────────────────────

    def drawn(self, name: str, arrow: str, answer: PreferredAnswer, width: int, numbers: bool) -> list[Text]:
        """An answer that waits for the choice, each token coloured by its log p."""
        source = "typed" if answer.seed is None else f"seed {answer.seed}"
        end = ", ended" if answer.ended else ""
        title = Text().append(f"{arrow} {name}", self.style("accent"))
        each = fmt.number(answer.logp / len(answer.tokens))
        facts = f"  {source} · ln p {fmt.number(answer.logp)}, {each} a token × {len(answer.tokens)}{end}"
        lines = wrapped(title.append(facts, self.style("muted")), width)
        parts = []
        for token, log in zip(answer.tokens, answer.logs, strict=True):
            shade = shades.grade("surprisal", -log)
            style = self.style(f"token-shade-{shade.level}")
            if numbers:
                parts.append(Text(f"{visible_token(token.text)} {fmt.number(log)}", style, no_wrap=True))
            else:
                parts.append(Text(visible(token.text), style))
        return lines + flow(parts, width, numbers=numbers)

    def changed(
        self, title: str, tokens: Sequence[Token], logs: Sequence[tuple[float, float]], width: int, numbers: bool
    ) -> list[Text]:
        """An answer after the choice, each token coloured by the change of its log p."""
        changed = changed_tokens(tokens, logs, width, self.style, numbers=numbers)
        return [*wrapped(Text(title, self.style("accent")), width), *changed]

    def legend(self, width: int, *, changes: bool) -> list[Text]:
        muted = self.style("muted")
        if changes:
            text = f"▲ ▼ Δ ln p of a token beyond ±{MOVED:g} nats · n: every number"
            return wrapped(Text(text, muted), width)
        parts = [Text("−ln p of a token:", muted)]
        parts += [
            Text(f"{shade.mark} {name}", self.style(f"token-shade-{shade.level}"))
            for shade, name in shades.legend("surprisal")
        ]
        return packed([*parts, Text("· n: every number", muted)], width, " ")

    # ── what a choice changed ────────────────────────────────────────────────────────────────────────────────────

    def change(self, change: PairChange, width: int) -> list[Text]:
        rows = (
            ("ln p(chosen)", change.before.chosen_logp, change.after.chosen_logp),
            ("ln p(rejected)", change.before.rejected_logp, change.after.rejected_logp),
            ("reward(chosen)", change.before.chosen_reward, change.after.chosen_reward),
            ("reward(rejected)", change.before.rejected_reward, change.after.rejected_reward),
            ("margin", change.before.margin, change.after.margin),
            ("loss", change.before.loss, change.after.loss),
        )
        room = max(8, min(20, width - 3 * NUMBER))
        head = fit("", room) + "before".rjust(NUMBER) + "after".rjust(NUMBER) + "change".rjust(NUMBER)
        lines = [Text(fit(head, width), self.style("muted"), no_wrap=True)]
        for name, before, after in rows:
            earlier, later, difference = moved(before, after, 2 if name.startswith("ln p") else 3)
            line = Text(fit(name, room), self.style("strong"), no_wrap=True)
            line.append(earlier.rjust(NUMBER), "not bold").append(later.rjust(NUMBER), "not bold")
            better = (after > before) == (name not in ("ln p(rejected)", "reward(rejected)", "loss"))
            style = "muted" if after == before else "good" if better else "bad"
            lines.append(line.append(difference.rjust(NUMBER), self.style(style)))
        return lines

    def notes(self, change: PairChange, settings: DPOSettings, width: int) -> list[Text]:
        lines: list[Text] = []
        if change.both_fell:
            lines += wrapped(Text(f"! {settings.both_fell} (f)", self.style("bad")), width)
        if change.left_out:
            left = counted(change.left_out, "token")
            lines += wrapped(
                Text(f"! the prompt's first {left} did not fit into the context", self.style("bad")), width
            )
        prompts = "the prompt" if change.prompts == 1 else f"the {change.prompts} prompts so far, their mean"
        kl = f"KL(π ‖ ref) of the next token after {prompts}: {fmt.compact(change.kl)} nats"
        return lines + wrapped(Text(kl, self.style("muted")), width)

    # ── all choices ──────────────────────────────────────────────────────────────────────────────────────────────

    def curves(self, preferred: Preferred, width: int) -> list[Text]:
        """Loss, margin and held-out agreement over the choices."""
        changes = preferred.changes
        if not changes:
            return []
        agreed, known = preferred.agreements
        ranked = counted(len(changes), "pair")
        if known:
            held_out = (
                "the first says nothing, the copy being the reference"
                if known == len(changes) - 1
                else "the first, and pairs ranked before, say nothing"
            )
            text = (
                f"of {ranked} you ranked, the model agreed on {agreed} of {known} before it learned them ({held_out})"
            )
        else:
            text = f"{ranked} ranked; whether the model agrees with you is measured on each further pair, before it learns it"
        lines = [Text(), *wrapped(Text(text, self.style("strong")), width)]
        if len(changes) < 2:
            return lines
        rates, hits, seen = [], 0, 0
        for one in changes:
            if one.agreed is not None:
                hits, seen = hits + one.agreed, seen + 1
                rates.append(hits / seen)
        rows: list[tuple[str, list[float]]] = [
            ("loss before", [one.before.loss for one in changes]),
            ("loss after", [one.after.loss for one in changes]),
            ("margin before", [one.before.margin for one in changes]),
            ("margin after", [one.after.margin for one in changes]),
            ("agreement", rates),
        ]
        title = "each choice, before and after its steps (before: held out)"
        lines += wrapped(Text(title, self.style("muted")), width)
        return lines + [self._curve(name, values, width) for name, values in rows if values]

    def _curve(self, name: str, values: Sequence[float], width: int) -> Text:
        shown = values[-max(1, width - 36) :]
        line = Text(fit(name, 14), self.style("strong"), no_wrap=True).append(spark(shown), self.style("bar"))
        return line.append(f"  {fmt.number(shown[0], 3)} → {fmt.number(shown[-1], 3)}", "not bold")
