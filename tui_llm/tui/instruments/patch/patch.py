"""The Patch screen: the text is the changed prompt, the values come from a clean one that is typed."""

from __future__ import annotations

from collections.abc import Iterable

from textual.app import ComposeResult
from textual.content import Content

from tui_llm.common.display import visible
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Target
from tui_llm.instruments.patch.question import PARTS, PatchGrid, PatchPiece, PatchQuestion
from tui_llm.tui.instruments.patch.grid import SHADED, PatchLines
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory, bindings
from tui_llm.tui.kit.over import OverLab, Row
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

SECONDS = 0.1  # of computing for each piece: the grid is drawn so often
HINT = "Enter computes · change a word of the text: its values are put into the text · Esc cancels"
NONE = "c types the clean prompt: the same text with another word, whose values are put into this text, part by part"
TITLES = {"residual": "residual stream", "attention": "attention output", "mlp": "MLP output"}

OPEN = Command(
    "patch",
    "percent_sign",
    "patch",
    "Patch: put the values of another prompt into this text, layer by layer and token by token",
    "Patch",
    "lab",
    "app.open('patch')",
)
_key = CommandFactory("patch", "Patch")
KEYS = (
    _key("patch_left", "left", "token", "Go to the token before", "move(-1)", together="token"),
    _key("patch_right", "right", "token", "Go to the next token", "move(1)", together="token"),
    _key("patch_do", "enter", "patch", "Patch for real: every pane shows the text with this value in it, until it is undone", "patch"),
    _key("patch_largest", "m", "largest", "Go to the cell that changes the logit difference most", "largest"),
    _key("patch_part", "p", "part", "Patch the residual stream, the attention's output or the MLP's", "part"),
    _key("patch_clean", "c", "clean prompt", "Type the clean prompt", "choose"),
    _key("patch_rival", "r", "rival", "Type the token whose logit is subtracted; empty: the text's likeliest other token", "rival"),
    _key("patch_unit", "n", "logits", "Show logits, or the share of the way from this text to the clean prompt", "unit"),
    _key("patch_numbers", "v", "numbers", "Show numbers, fewer columns at a time, or only shades", "numbers"),
    _key("patch_pause", "space", "pause", "Stop computing, or go on", "pause"),
    _key("patch_copy", "y", "copy", "Copy the grid as a table (tab-separated)", "copy"),
    _key("close_patch", "escape,q,percent_sign", "back", "Back to the five panes; what is not computed yet is dropped", "close", importance=WAY_OUT),
)  # fmt: skip


@opens("patch", LabContext.has_reading, LabContext.has_text)
class PatchScreen(OverLab):
    tour_name = "patch"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    PatchScreen PatchLines { height: 1fr; padding: 0 1; background: $background; }
    """

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.request = context.lab.current_request()
        self._model = context.model
        self.part = next(iter(PARTS))
        self.rival: Target | None = None
        self.paused = False

    def compose(self) -> ComposeResult:
        yield Bar(id="patch-top")
        yield PatchLines()
        yield KeyBar(id="patch-keys")

    def on_mount(self) -> None:
        self.show_keys()
        self.lines.focus()
        self.lines.say(NONE)
        self._show_top()
        self.action_choose()

    def on_unmount(self) -> None:
        self.context.questions.forget(PatchQuestion)

    @property
    def lines(self) -> PatchLines:
        return self.query_one(PatchLines)

    @property
    def grid(self) -> PatchGrid | None:
        return self.lines.grid

    def reopened(self, weights: Weights) -> None:
        """A grid holds the cells of one model."""
        if weights.name != self._model:
            self._model, self.request = weights.name, self.context.lab.current_request()
        self._begin()
        self._show_top()

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        """Computes a new grid."""
        if not self.context.lab.clean_prompt:
            return
        self.paused = False
        self.lines.say("computing …")
        self._ask(0)

    def _ask(self, known: int) -> None:
        clean = self.context.lab.clean_prompt
        question = PatchQuestion(self.request, clean, PARTS[self.part], self.rival, known, SECONDS)
        self.context.questions.ask(self, question, self._take, self._fail)
        self._show_top()

    def _take(self, piece: PatchPiece) -> None:
        grid = self.grid
        if grid is None:
            self.lines.column = len(piece.tokens) - 1
            grid = PatchGrid(piece)
        else:
            grid.take(piece)
        self.lines.show(grid)
        if not grid.complete and not self.paused:
            self._ask(piece.done)
        self._show_top()

    def _fail(self, problem: str) -> None:
        self.lines.say(visible(problem), bad=True)
        self._show_top()

    def _show_top(self) -> None:
        weights, grid = self.context.weights, self.grid
        parts: list[str | tuple[str, str]] = [("Patch  ", "bold"), f"{TITLES[self.part]}  "]
        if weights is not None:
            parts.append((f"{visible(weights.name)}  ", "$text-muted"))
        if grid is not None and not grid.complete:
            share = 100 * grid.piece.done // max(1, grid.piece.total)
            doing = "stopped, Space goes on" if self.paused else "Space stops it"
            parts.append((f"{share} % computed · {doing}", "$text-accent"))
        elif grid is not None:
            parts.append(("clean: ", "$text-muted"))
            parts.append(visible(self.context.lab.clean_prompt[-200:]))
        self.query_one("#patch-top", Bar).put(Content.assemble(*parts))

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_choose(self) -> None:
        lab = self.context.lab

        def answered(text: str | None) -> None:
            if text:
                lab.clean_prompt = text
                self._begin()

        text = lab.clean_prompt or lab.prompt + lab.generated_text
        self.app.push_screen(AskScreen("The clean prompt", HINT, text, spaces=True), answered)

    def action_rival(self) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self.rival = Target(text=text) if text.strip() else None
                self._begin()

        hint = "Enter computes · its first token is taken; empty: the likeliest other token · Esc cancels"
        known = self.rival.text if self.rival is not None else " "
        self.app.push_screen(AskScreen("The rival", hint, known or " ", spaces=True), answered)

    def action_part(self) -> None:
        names = list(PARTS)
        self.part = names[(names.index(self.part) + 1) % len(names)]
        self._begin()
        self._show_top()

    def action_move(self, by: int) -> None:
        self.lines.move(by)

    def action_largest(self) -> None:
        if self.grid is not None and (cell := self.grid.largest()) is not None:
            self.lines.go_to(*cell)

    def action_unit(self) -> None:
        self.lines.normalised = not self.lines.normalised
        self.lines.rebuild()

    def action_numbers(self) -> None:
        lines = self.lines
        if self.grid is not None:
            lines.numbers = lines.columns(lines.line_width).cells == SHADED
            lines.rebuild()

    def action_pause(self) -> None:
        grid = self.grid
        if grid is None or grid.complete:
            return
        self.paused = not self.paused
        if self.paused:
            self.context.questions.forget(PatchQuestion)
            self._show_top()
        else:
            self._ask(grid.piece.done)

    def action_patch(self) -> None:
        """Puts the intervention of the selected cell into the lab's state, and closes the screen."""
        grid, row, lab = self.grid, self.lines.cursor, self.context.lab
        if grid is None or row is None:
            return
        if grid.piece.counterparts[self.lines.column] is None:
            self.notify("no token of the clean prompt is aligned with this one", markup=False, timeout=3)
            return
        patch = grid.piece.patch(grid.piece.layers[row], self.lines.column)
        self.dismiss(None)
        lab.intervene((*(one for one in lab.interventions if one != patch), patch))
        self.context.request_reading()
        self.context.notify(f"patched: {patch.name}")

    def table(self) -> Iterable[Row]:
        grid = self.grid
        if grid is None:
            return
        piece = grid.piece
        yield "token", "id", "text", "clean_id", "clean_text", *(f"layer {layer}" for layer in piece.layers)
        for at, token in enumerate(piece.tokens):
            other = piece.counterparts[at]
            clean = ("", "") if other is None else (str(other.id), visible(other.text))
            effects = ("" if row[at] is None else repr(row[at]) for row in grid.effects)
            yield str(piece.left_out[1] + at), str(token.id), visible(token.text), *clean, *effects
