"""The Heads screen: the head detectors' scores of every head, on repeated random tokens or on the lab's text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui_llm.common.display import token_label, truncate, visible
from tui_llm.facts.head_scores import MEANINGS, SCORES, best
from tui_llm.facts.interventions import HEAD, Intervention, ModelPart, mark, named
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Target
from tui_llm.instruments.ablate.question import AblateQuestion, Ablation
from tui_llm.instruments.heads.question import Heads, HeadsQuestion
from tui_llm.tui.instruments.open_keys import HEADS
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.over import OverLab, Row, copy_rows
from tui_llm.tui.kit.shades import LEGEND
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.kit.widgets.head_map import TITLES, HeadMap
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

_key = CommandFactory("heads", "Heads")
OPEN = HEADS
KEYS = (
    _key("close_heads", "escape,q,asterisk", "back", "Back to the five panes", "close", importance=WAY_OUT),
    _key("heads_left", "left", "head", "Select the previous head; ↑ and ↓ select the layer", "head(-1)", priority=True, together="head"),
    _key("heads_right", "right", "head", "Select the next head; ↑ and ↓ select the layer", "head(1)", priority=True, together="head"),
    _key("heads_best", "b,tab", "best", "Go to the best head of the next score", "best"),
    _key("heads_score", "m", "score", "Show the map of the next score, where not all fit", "score"),
    _key("heads_attention", "enter", "attention", "Show the attention of the selected head on the text", "attention", priority=True),
    _key("heads_switch", "x", "off/on", "Switch the selected head off, or on again: every pane shows the changed model", "switch", importance=3),
    _key("heads_all_on", "0", "all on", "Switch every part of the model on again", "all_on", footer=()),
    _key("heads_text", "t", "text/random", "Score the heads on the lab's text, or on repeated random tokens", "text"),
    _key("heads_seed", "r", "other tokens", "Draw other random tokens", "seed"),
    _key("heads_copy", "y", "copy", "Copy all scores (tab-separated)", "copy"),
)  # fmt: skip


@opens("heads", LabContext.is_open)
class HeadsScreen(OverLab):
    tour_name = "heads"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    HeadsScreen #heads-map { height: 1fr; }
    HeadsScreen #heads-facts { height: auto; padding: 0 1; }
    """

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.found: Heads | None = None
        self._model = context.model
        self.problem = ""
        self.seed = 1
        self.own_text = False
        self._answered = (self.seed, self.own_text)  # those of `found`
        self.loss: Ablation | None = None  # the target's, without and with what is switched off
        self._best = -1  # index of the score whose best head was selected last

    def compose(self) -> ComposeResult:
        yield Bar(id="heads-top")
        yield Static(id="heads-facts")
        yield HeadMap("heads-map")
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        super().on_mount()
        self.show_keys()
        self.query_one(HeadMap).focus()
        self._show_facts()
        self.ask()
        self._ask_loss()

    def on_unmount(self) -> None:
        self.context.questions.forget(HeadsQuestion)
        self.context.questions.forget(AblateQuestion)

    def on_resize(self) -> None:
        self._show_facts()

    def reopened(self, weights: Weights) -> None:
        if weights.name != self._model:
            self._model, self.found, self.loss = weights.name, None, None
            self.query_one(HeadMap).show(())
            self._show_facts()
        self.ask()
        self._ask_loss()

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self) -> None:
        request = self.context.lab.current_request()
        question = HeadsQuestion(request, self.seed, own_text=self.own_text)
        self.context.questions.ask(self, question, partial(self._take, question), self._fail)

    def _ask_loss(self) -> None:
        """The loss of the lab's target, or of the token that the model finds likeliest, without and with what is off."""
        request = dataclasses.replace(self.context.lab.current_request(), interventions=(), overrides=(), scores=False)
        if not request.empty:
            question = AblateQuestion(request, self.context.lab.interventions)
            self.context.questions.ask(self, question, self._loss_known, lambda _problem: None)

    def _loss_known(self, found: Ablation) -> None:
        self.loss = found
        self._show_facts()

    @property
    def _off(self) -> list[tuple[int, int]]:
        """The heads that are switched off or changed in the scores: (layer, head)."""
        return [(one.part.layer, one.part.head) for one in self._acting if one.part.kind == HEAD]

    @property
    def _acting(self) -> list[Intervention]:
        """The interventions that the scores are of: on random tokens some are left out."""
        left_out = () if self.found is None else self.found.left_out
        return [one for one in self.context.lab.interventions if one not in left_out]

    def changed_words(self) -> str:
        return mark(self._acting)

    def seen_words(self) -> str:
        return super().seen_words() if self._answered[1] else ""

    def _take(self, question: HeadsQuestion, found: Heads) -> None:
        first = self.found is None
        self.found, self.problem, self._answered = found, "", (question.seed, question.own_text)
        with self.app.batch_update():
            self.query_one(HeadMap).show(found.heads, self._off)
            if first and (top := best(found.heads, SCORES[0])) is not None:
                self.query_one(HeadMap).select(top.layer, top.head)
            self._mark()
            self._show_facts()

    def _fail(self, problem: str) -> None:
        self.found, self.problem = None, problem
        with self.app.batch_update():
            self.query_one(HeadMap).show(())
            self._mark()
            self._show_facts()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def _show_facts(self) -> None:
        found, weights = self.found, self.context.weights
        parts: list[str | tuple[str, str]] = [("Heads  ", "bold"), visible(weights.name) if weights else "…"]
        if weights is not None and weights.step is not None:
            parts.append(f" at step {fmt.count(weights.step)}")
        parts.append((f"  {self._source()}", "$text-muted"))
        self.query_one("#heads-top", Bar).put(Content.assemble(*parts))
        map = self.query_one(HeadMap)
        map.border_title = Text("mean attention to the pattern's tokens, 0 to 1")
        map.border_subtitle = Text(LEGEND if self.size.width >= 60 else "")
        facts = self.query_one("#heads-facts", Static)
        if self.problem:
            facts.update(Content.styled(visible(self.problem), "$text-error"))
        elif found is None:
            facts.update(Content.styled("computing …", "$text-muted"))
        else:
            # Where there is little room, the map comes before what `b` finds in it too.
            lines = [self._best_line(found, score) for score in SCORES] if self.size.height >= 18 else []
            lines += [self._selected_line(map), *self._loss_lines(), *self._left_out_lines(found)]
            room = max(1, self.size.width - 2)
            facts.update(Content("\n").join([line.truncate(room, ellipsis=True) for line in lines]))

    def _source(self) -> str:
        found = self.found
        seed, own_text = self._answered if found is not None else (self.seed, self.own_text)
        if own_text:
            return f"on the text, {fmt.count(found.counts.tokens)} tokens" if found else "on the text"
        if found is None:
            return "on random tokens, repeated once"
        return f"on {found.sequences} × {found.length} random tokens, repeated once (seed {seed})"

    def _best_line(self, found: Heads, score: str) -> Content:
        top = best(found.heads, score)
        name = (TITLES[score].ljust(16), "$text-muted")
        if top is None:
            return Content.assemble(name, "no token occurs twice in this text")
        number = f"{top.of(score):.3f}"
        return Content.assemble(
            name, (f"{top.name:>6} ", "bold $text-accent"), (number, "bold"), f"  {MEANINGS[score]}"
        )

    def _selected_line(self, map: HeadMap) -> Content:
        one = map.selected
        if one is None:
            return Content()
        numbers = " · ".join(f"{score} {self._number(one.of(score))}" for score in SCORES)
        return Content.assemble(("head ".ljust(16), "$text-muted"), (f"{one.name:>6} ", "bold"), numbers)

    def _loss_lines(self) -> list[Content]:
        found = self.loss
        if found is None:
            return []
        target = truncate(token_label("".join(token.text for token in found.target)), 30)
        parts: list[str | tuple[str, str]] = [("loss of the text's target ", "$text-muted"), (target, "$text-accent")]
        parts.append((f"  {found.before.loss:.3f}", "bold"))
        if found.interventions:
            parts.append((f" → {found.after.loss:.3f}", "bold $text-warning"))
            parts.append(f"  with {named(found.interventions)}")
        return [Content.assemble(*parts)]

    @staticmethod
    def _left_out_lines(found: Heads) -> list[Content]:
        words = f"scores without {named(found.left_out)}: it is of a token of the text, and these are random"
        return [Content.styled(words, "$text-warning")] if found.left_out else []

    @staticmethod
    def _number(score: float | None) -> str:
        return "–" if score is None else f"{score:.3f}"

    @on(HeadMap.Moved)
    def _moved(self) -> None:
        self._show_facts()

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_head(self, by: int) -> None:
        self.query_one(HeadMap).move(by)

    def action_score(self) -> None:
        self.query_one(HeadMap).next_score()

    def action_best(self) -> None:
        if self.found is not None:
            self._best = (self._best + 1) % len(SCORES)
            map, score = self.query_one(HeadMap), SCORES[self._best]
            map.score = score
            if (top := best(self.found.heads, score)) is not None:
                map.select(top.layer, top.head)

    def action_switch(self) -> None:
        """Switches the selected head off, or on again, in the lab's model."""
        one = self.query_one(HeadMap).selected
        if one is None:
            return
        part, now = ModelPart(HEAD, one.layer, one.head), self.context.lab.interventions
        kept = tuple(other for other in now if other.part != part)
        self._set(kept if len(kept) < len(now) else (*now, Intervention(part)))

    def action_all_on(self) -> None:
        self._set(())

    def _set(self, wanted: tuple[Intervention, ...]) -> None:
        lab, found = self.context.lab, self.loss
        if wanted and found is not None and lab.requested_target.likeliest:
            lab.choose_target(Target(id=found.target[0].id))  # the likeliest token would be another one
        self.context.intervene(wanted)
        self.query_one(HeadMap).show(self.found.heads if self.found is not None else (), self._off)
        self._mark()
        self.ask()
        self._ask_loss()

    def _mark(self) -> None:
        """The bar that says which parts are off in the scores."""
        for bar in self.query("#changed-model").results(Bar):
            bar.display = bool(words := self.changed_words())
            bar.put(Content.styled(words, "bold $text-warning"))
        super().on_mount()

    def action_text(self) -> None:
        if self.own_text or self.context.has_text():
            self.own_text = not self.own_text
            self.ask()

    def action_seed(self) -> None:
        self.own_text = False
        self.seed += 1
        self.ask()

    def action_copy(self) -> None:
        self.notify(copy_rows(self.app, list(self.table()), self.changed_words()), markup=False, timeout=3)

    def action_attention(self) -> None:
        """Opens the Inside screen at the selected head."""
        from tui_llm.tui.instruments.inside.inside import InsideScreen

        one, lab = self.query_one(HeadMap).selected, self.context.lab
        if one is not None and self.context.has_text():
            screen = InsideScreen(self.context, lab.current_request(), lab.target, layer=one.layer, head=one.head)
            self.app.push_screen(screen)

    def table(self) -> Iterable[Row]:
        yield "layer", "head", *SCORES
        for one in self.found.heads if self.found is not None else ():
            yield (
                str(one.layer),
                str(one.head),
                *(repr(one.of(score)) if one.of(score) is not None else "" for score in SCORES),
            )
