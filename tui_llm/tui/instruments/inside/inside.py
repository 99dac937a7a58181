"""The Inside screen: for one token of the text, what each head attends to, what each layer would predict, and which
embeddings are near. All of it is computed only when this screen asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from textual import events, on
from textual.app import ComposeResult
from textual.content import Content
from textual.timer import Timer

from tui_llm.common.display import token_label, visible
from tui_llm.facts.model import Weights
from tui_llm.facts.place import Place
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.attention.question import AttentionMap, AttentionQuestion
from tui_llm.instruments.lens.question import Lens, LensQuestion
from tui_llm.instruments.neighbours.question import Neighbours, NeighboursQuestion
from tui_llm.tui.instruments.inside.heads import HeadGrid
from tui_llm.tui.instruments.inside.keys import KEYS
from tui_llm.tui.instruments.inside.lens import LensTable
from tui_llm.tui.instruments.inside.neighbours import NeighbourTable
from tui_llm.tui.instruments.inside.text import TokenText
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import bindings, in_footer
from tui_llm.tui.kit.over import OverLab, Row
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar, press
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.tour.pane import left_of

STALE_AFTER = 0.15  # seconds: an answer that arrives sooner needs no mark
VIEWS = {"attention": "Attention", "lens": "Lens", "neighbours": "Neighbours"}
NOTHING = "there is no text yet: Esc, then i types some; / shows the neighbours of a token"
TOP, COUNT = 12, 50  # how many tokens of a lens row, and neighbours, to request


class InsideScreen(OverLab):
    """`lab` asks the instruments. The text is the lab's when the screen opens; `target` is the lens's target. `layer` and
    `head`, from 0: the head that is selected first; None: the mean."""

    shows_text = False  # it says so itself
    tour_name = "inside"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    InsideScreen #inside-text { height: 1fr; }
    """

    def __init__(
        self,
        context: LabContext,
        request: Request,
        target: Target | None,
        number: int | None = None,
        *,
        view: str = "attention",
        layer: int | None = None,
        head: int | None = None,
    ) -> None:
        super().__init__()
        self.context, self.request, self.target = context, request, target
        self.view, self.selected = view, (layer, head)
        self.number = number  # index of the selected token; None is the last
        self.place: Place | None = None
        self.weights: Weights | None = context.weights
        self.tuned = False  # which lens
        self.trail: list[int] = []  # tokens whose neighbours were shown before
        self._timer: Timer | None = None
        self._working = False

    @property
    def tour_view(self) -> str:
        return self.view

    # ── layout ───────────────────────────────────────────────────────────────────────────────────────────────────

    def compose(self) -> ComposeResult:
        yield Bar(id="inside-top")
        yield TokenText()
        yield HeadGrid(*self.selected)
        yield LensTable()
        yield NeighbourTable()
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.action_view(self.view)

    def on_unmount(self) -> None:
        for kind in (AttentionQuestion, LensQuestion, NeighboursQuestion):
            self.context.questions.forget(kind)

    @property
    def body(self) -> HeadGrid | LensTable | NeighbourTable:
        if self.view == "attention":
            return self.query_one(HeadGrid)
        return self.query_one(LensTable) if self.view == "lens" else self.query_one(NeighbourTable)

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """Gives the text the height that the view below leaves or, if the view can use more, the height that the text
        needs."""
        room, text, heads = left_of(self).height - 2, self.query_one(TokenText), self.query_one(HeadGrid)
        if self.view == "attention":
            rows = heads.row_count(1) + 3
            heads.styles.height = max(3, min(rows, room * 3 // 5))
            text.styles.height = "1fr"
        else:
            text.styles.height = max(3, min(text.lines_wanted + 2, room // 3))

    def _show_top(self) -> None:
        weights = self.weights
        parts = [Content("Inside "), Content(visible(weights.name) if weights else "…").stylize("bold")]
        if weights is not None and weights.step is not None:
            parts.append(Content(f" at step {fmt.count(weights.step)}"))
        for at, (name, title) in enumerate(VIEWS.items(), 1):
            tab = Content(f"[{at} {title}]" if name == self.view else f" {at} {title} ")
            tab = tab.stylize(press(f"screen.view('{name}')")).stylize(
                "bold $text-accent" if name == self.view else "$text-muted"
            )
            parts += [Content("  "), tab]
        if self._working:
            parts.append(Content("  computing …"))
        self.query_one("#inside-top", Bar).put(Content("").join(parts))

    def _show_text(self, problem: str = "") -> None:
        """Shows the text and, in the attention view, what the selected head attends to."""
        text, heads = self.query_one(TokenText), self.query_one(HeadGrid)
        attention = heads.attention
        known = self.view == "attention" and attention is not None and attention.place == self.place
        text.show(self.place, heads.attention_row if known else None, problem)
        title = Content("Text")
        if self.place is not None:
            place = self.place
            title = Content(
                f"Token {fmt.count(place.number + 1)} of {fmt.count(place.count)}: {token_label(place.token.text)}"
            )
            if known:
                title += Content(f" attends ({heads.selection_name}) to")
        text.border_title = title
        self._arrange()

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self) -> None:
        """Asks for what the view shows about the selected token."""
        if self.view == "attention":
            self.context.questions.ask(
                self, AttentionQuestion(self.request, self.number), self._attention, self._no_place
            )
        elif self.view == "lens":
            at_end = self.number is None or self.place is None or self.number == self.place.count - 1
            given = at_end and self.target is not None and not self.target.own  # the last token has no next token
            request = dataclasses.replace(self.request, target=self.target if given else None)
            question = LensQuestion(request, self.number, TOP, self.tuned)
            self.context.questions.ask(self, question, self._lens, self._no_lens if self.tuned else self._no_place)
        elif self.place is not None:
            self._ask_neighbours(id=self.place.token.id)
            return
        else:  # the tokens of the text are not known yet, or there are none
            self.context.questions.ask(
                self, AttentionQuestion(self.request, self.number), self._attention, self._no_place
            )
        self._wait()

    def _ask_neighbours(self, id: int = 0, text: str | None = None) -> None:
        self.context.questions.ask(
            self, NeighboursQuestion(self.request, id, COUNT, text), self._neighbours, self._problem
        )
        self._wait()

    def reopened(self, weights: Weights) -> None:
        """Called when other weights are open: asks for everything again."""
        other = weights.name != (self.weights.name if self.weights is not None else None)
        self.weights = weights
        if other:
            lab = self.context.lab
            self.request, self.target, self.number, self.place = lab.current_request(), lab.target, None, None
            self.trail.clear()
            self.query_one(HeadGrid).clear()
            self.query_one(LensTable).clear()
            self.query_one(NeighbourTable).clear()
            self._show_text()
        self._show_top()
        self.ask()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.set_timer(STALE_AFTER, self._mark_working)

    def _mark_working(self) -> None:
        self._working = True
        self._show_top()

    def _answered(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        if self._working:
            self._working = False
            self._show_top()

    def _problem(self, line: str) -> None:
        self._answered()
        self._show_text(line)

    def _no_place(self, line: str) -> None:
        self._problem(NOTHING if self.request.empty else line)

    def _attention(self, found: AttentionMap) -> None:
        self._answered()
        with self.app.batch_update():
            self.place = found.place
            self.query_one(HeadGrid).show(found)
            self._show_text()
        if self.view == "neighbours":
            self.ask()

    def _no_lens(self, line: str) -> None:
        """Shows the logit lens if there is no tuned one."""
        self.context.notify(line)
        self.tuned = False
        self.ask()

    def _lens(self, found: Lens) -> None:
        self._answered()
        moved = found.place != self.place
        with self.app.batch_update():
            self.place = found.place
            self.query_one(LensTable).show(found)
            self._show_text()
        if moved and self.view == "neighbours":  # which were asked for at the place before
            self.ask()

    def _neighbours(self, found: Neighbours) -> None:
        self._answered()
        with self.app.batch_update():
            self.query_one(NeighbourTable).show(found)
            self._show_text()

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def action_view(self, name: str) -> None:
        self.view = name
        for kind in (HeadGrid, LensTable, NeighbourTable):
            self.query_one(kind).display = kind is type(self.body) and (
                kind is NeighbourTable or not self.request.empty
            )
        self.body.focus()
        self.query_one(KeyBar).show_commands(in_footer(KEYS, f"inside_{name}"))
        self._show_top()
        self._show_text()
        self.ask()

    def action_token(self, by: int) -> None:
        if self.place is not None:
            now = self.place.number if self.number is None else self.number
            self._choose(max(self.place.first, min(now + by, self.place.count - 1)))

    def action_token_end(self, end: int) -> None:
        if self.place is not None:
            self._choose(self.place.count - 1 if end else self.place.first)

    @on(TokenText.Chosen)
    def _token_clicked(self, message: TokenText.Chosen) -> None:
        self._choose(message.number)

    def _choose(self, number: int) -> None:
        if self.place is None:
            return
        self.number = number
        if self.view == "neighbours":  # the selected token is known without an answer
            self.place = dataclasses.replace(self.place, number=number)
            self.trail.clear()
            self._show_text()
        self.ask()

    def action_head(self, by: int) -> None:
        if self.view == "attention":
            self.query_one(HeadGrid).move_head(by)

    def action_measure(self) -> None:
        if self.view == "attention":
            self.query_one(HeadGrid).next_measure()

    @on(HeadGrid.Moved)
    def _head_moved(self) -> None:
        self._show_text()

    def action_tuned(self) -> None:
        if self.view == "lens":
            self.tuned = not self.tuned
            self.ask()

    def action_go(self) -> None:
        table = self.query_one(NeighbourTable)
        if self.view == "neighbours" and table.neighbours is not None and table.selected is not None:
            self.trail.append(table.neighbours.token.id)
            self._ask_neighbours(id=table.selected.id)

    def action_go_back(self) -> None:
        if self.view == "neighbours" and self.trail:
            self._ask_neighbours(id=self.trail.pop())

    def action_search(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        if self.view != "neighbours":
            self.action_view("neighbours")

        def answered(text: str | None) -> None:
            if text:
                found = self.query_one(NeighbourTable).neighbours
                if found is not None:
                    self.trail.append(found.token.id)
                self._ask_neighbours(text=text)

        hint = "Enter shows its neighbours · #464: the token with that id · Esc cancels"
        self.app.push_screen(AskScreen("One token", hint, spaces=True), answered)

    def action_over(self, name: str) -> None:
        """Opens another screen for the same token."""
        from tui_llm.tui.instruments.backward import BackwardScreen
        from tui_llm.tui.instruments.block import BlockScreen
        from tui_llm.tui.instruments.lens_grid import LensGridScreen

        screens = {"grid": LensGridScreen, "block": BlockScreen, "backward": BackwardScreen}
        if self.context.is_open() and self.context.has_text():
            screen = screens[name](self.context, self.number)
            if isinstance(screen, LensGridScreen):
                screen.tuned = self.tuned
            self.context.push_screen(screen)

    def table(self) -> Iterable[Row]:
        return self.body.table()
