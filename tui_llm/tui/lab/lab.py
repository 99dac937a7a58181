"""The lab screen: one prompt, five panes. Holds the lab's state, requests its readings, and shows them in the panes."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container
from textual.timer import Timer
from textual.widget import Widget

from tui_llm.facts.engine import Engine
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Target
from tui_llm.tui.kit.command import PANES, bindings
from tui_llm.tui.kit.widgets.bars import KeyBar, TabBar, TopBar
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.lab.branching import Branching
from tui_llm.tui.lab.choosing import Choosing
from tui_llm.tui.lab.drawing import Drawing
from tui_llm.tui.lab.ghosting import Ghosting
from tui_llm.tui.lab.keep import Keeping
from tui_llm.tui.lab.keys import ALL, footer, further
from tui_llm.tui.lab.measuring import Measuring
from tui_llm.tui.lab.opening import Opening
from tui_llm.tui.lab.panes.generate import GeneratePane
from tui_llm.tui.lab.panes.logits import LogitsPane
from tui_llm.tui.lab.panes.loss import LossPane
from tui_llm.tui.lab.panes.tokens import TokensPane
from tui_llm.tui.lab.pinning import Pinning
from tui_llm.tui.lab.sampling import Sampling
from tui_llm.tui.lab.switching import Switching
from tui_llm.tui.lab.tabling import Tabling
from tui_llm.tui.lab.token_tools import TokenTools
from tui_llm.tui.lab.touring import Touring
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.state.messages import EngineProgress, Failed, ModelOpened, ReadingReady, TargetChosen

LATE_AFTER = 0.05  # seconds: a reading that arrives sooner is shown together with the new state, in one repaint
STALE_AFTER = 0.15  # seconds: no pane is marked stale if the reading arrives sooner
NARROW, LOW, WIDE = 100, 30, 180  # columns and rows at which the layout changes
CANCELLABLE_AFTER = 2.0


class LabScreen(
    TokenTools,
    Drawing,
    Choosing,
    Keeping,
    Opening,
    Pinning,
    Switching,
    Sampling,
    Tabling,
    Measuring,
    Ghosting,
    Branching,
    Touring,
):
    BINDINGS = bindings(ALL, "lab")

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        model: str,
        prompt: str,
        key_of: Callable[[str], str | None],
    ) -> None:
        super().__init__(open_engine, prompt)
        self.key_of = key_of
        self.model = model
        self.zoomed = False
        self._stale_timer: Timer | None = None
        self._busy: tuple[str, float] | None = None
        self._busy_timer: Timer | None = None
        self._problem = ""
        self._target_proposed = False

    # ── layout ───────────────────────────────────────────────────────────────────────────────────────────────────

    def compose(self) -> ComposeResult:
        yield TopBar(id="top")
        yield PromptEditor(self.lab.prompt, id="prompt")
        yield TabBar(id="tabs")
        with Container(id="panes"):
            yield TokensPane(self.lab)
            yield LogitsPane(self.lab)
            yield LossPane(self.lab)
            yield TrainingPane()
            yield GeneratePane(self.lab)
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.prompt.border_title = Text("Prompt")
        self.prompt.focus()
        self.query_one(TopBar).show_busy("starting", 0, "")
        self._arrange()
        # After the first paint, as this imports torch.
        self.call_after_refresh(self.client.start, self.model)

    def on_unmount(self) -> None:
        self.client.close()

    @property
    def reading_panes(self) -> tuple[TokensPane, LogitsPane, LossPane, GeneratePane]:
        return (
            self.query_one(TokensPane),
            self.query_one(LogitsPane),
            self.query_one(LossPane),
            self.query_one(GeneratePane),
        )

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def fit_panes(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """Shows one pane, two columns or three, depending on the size."""
        width, height = self.size
        width, height = width - self.tour_room.width, height - self.tour_room.height
        single = width < NARROW or height < LOW
        panes = self.query_one("#panes")
        panes.set_class(single or self.zoomed, "-one")
        panes.set_class(not single and width < WIDE, "-two")
        panes.set_class(not single and width >= WIDE, "-three")
        self.set_class(single, "-single")
        self.set_class(height < 16, "-low")
        for name in PANES:
            self.pane(name).display = not (single or self.zoomed) or name == self.current
        self.query_one(TabBar).show(self.current)
        self.call_after_refresh(self.query_one(KeyBar).show_rest)

    @property
    def one_at_a_time(self) -> bool:
        return self.zoomed or self.has_class("-single")

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        place = self._place(event.widget)
        if place in PANES and place != self.current:
            self.current = place
            self._arrange()
        typing = place == "prompt"
        self.prompt.border_title = Text("Prompt · typing: Esc when done" if typing else "Prompt · i edits")
        if place in PANES:
            self.query_one(KeyBar).show(footer(place), self.pane(place), further(place))
        else:
            self.query_one(KeyBar).show(footer(place))
        self.show_undo()
        if typing:
            self.await_ghost()

    def _place(self, widget: Widget) -> str:
        """The name of the pane (or the prompt) that contains a widget."""
        for node in widget.ancestors_with_self:
            if isinstance(node, Widget) and node.id in (*PANES, "prompt"):
                return str(node.id)
        return "prompt"

    def action_pane(self, name: str) -> None:
        self.current = name
        self._arrange()
        pane = self.pane(name)
        if pane.can_focus:
            pane.focus()
        else:
            first = next((widget for widget in pane.query("*") if widget.focusable), None)
            if first is not None:
                first.focus()

    def action_cycle(self, direction: int) -> None:
        """Moves the focus to the next widget: within the pane first, then in the next pane."""
        chain, focused = self.focus_chain, self.focused
        if not self.one_at_a_time or focused is None:
            self.focus_next() if direction > 0 else self.focus_previous()
            return
        at = chain.index(focused) + direction if focused in chain else 0
        if 0 <= at < len(chain) and self._place(chain[at]) == self._place(focused):
            chain[at].focus()
            return
        places = ("prompt", *PANES)
        place = places[(places.index(self._place(focused)) + direction) % len(places)]
        if place == "prompt":
            self.prompt.focus()
        else:
            self.action_pane(place)

    def action_zoom(self) -> None:
        self.zoomed = not self.zoomed
        self._arrange()

    # ── typing ───────────────────────────────────────────────────────────────────────────────────────────────────

    def action_type(self) -> None:
        self.prompt.focus()

    @on(PromptEditor.Left)
    def _done_typing(self) -> None:
        self.action_pane(self.current)

    @on(PromptEditor.Edited)
    def _prompt_edited(self) -> None:
        text = self.prompt.prompt_text
        if text == self.lab.prompt:
            return
        self.lab.prompt = text
        self.drop_ghost()
        if self.lab.steps or self._job is not None:
            self.stop_stream()
            self.lab.clear("the prompt changed: its continuation was dropped")
        self.ask()

    # ── requesting readings ──────────────────────────────────────────────────────────────────────────────────────

    def ask(self) -> None:
        """Requests a reading of the current state."""
        if self.weights is None:
            return
        seen = self.lab.history.next_undo
        self.client.read(self.lab.request())
        self.tell_dropped()
        self.show_undo(changed=self.lab.history.next_undo is not seen)
        self._await_answer()

    def _await_answer(self) -> None:
        if self._stale_timer is None:
            self._stale_timer = self.set_timer(LATE_AFTER, self._show_asked)

    def _show_asked(self) -> None:
        self._stale_timer = self.set_timer(STALE_AFTER - LATE_AFTER, self._mark_stale)
        self.query_one(GeneratePane).show(None)

    def _mark_stale(self) -> None:
        self._stale_timer = None
        if self.reading is None or self.reading.request.number != self.lab.number:
            for pane in self.reading_panes:
                pane.mark_stale(True)

    def show(self, reading: Reading) -> None:
        self.reading = reading
        current = reading.request.number == self.lab.number
        if current and self._stale_timer is not None:
            self._stale_timer.stop()
            self._stale_timer = None
        with self.app.batch_update():
            self.prompt.mark(reading.span if current and self.lab.position is not None else None)
            for pane in self.reading_panes:
                pane.show(reading)
                if current:
                    pane.mark_stale(False)
            self._problem = ""
            self.show_top()
        if current:
            self.await_ghost()
        if not self._target_proposed and reading.distribution is not None:
            self._target_proposed = True
            if self.lab.propose_target(reading.distribution.candidates):
                self.ask()

    def show_top(self) -> None:
        top = self.query_one(TopBar)
        if self._problem:
            top.show_problem(self._problem)
        elif self._busy is not None:
            text, since = self._busy
            seconds = time.monotonic() - since
            can_cancel = self.weights is not None and seconds >= CANCELLABLE_AFTER
            top.show_busy(
                text,
                seconds,
                "Esc cancels" if can_cancel else "ctrl+q quits" if seconds >= CANCELLABLE_AFTER else "",
            )
        elif self.weights is not None:
            top.show_model(self.weights, self.reading, self.following_words + self.what_if_words)

    # ── messages from the engine thread ──────────────────────────────────────────────────────────────────────────

    @on(EngineProgress)
    def _progress(self, message: EngineProgress) -> None:
        if self._busy_timer is not None:
            self._busy_timer.stop()
            self._busy_timer = None
        self._busy = (message.text, time.monotonic()) if message.text else None
        if self._busy is not None:
            self._problem = ""
            self._busy_timer = self.set_interval(0.5, self.show_top)
        self.show_top()

    @on(ModelOpened)
    def _opened(self, message: ModelOpened) -> None:
        before, self.weights = self.weights, message.weights
        self.lab.drop_changes()
        if message.fresh:
            self.switched(before, message.weights)
            self.lab.history.forget_steps()
            self.prompt.show_ghost(())
        self._problem = ""
        if message.weights.note:
            self.warn(message.weights.note)
        self.show_top()
        self.ask()

    @on(Failed)
    def _failed(self, message: Failed) -> None:
        if message.what == "open" and self.weights is not None:
            self.warn(message.line)  # the previous model stays open
            return
        if message.what in ("generate", "models"):
            self.warn(message.line)
            return
        self._problem = message.line
        self.show_top()

    @on(ReadingReady)
    def _reading_ready(self, message: ReadingReady) -> None:
        if message.reading.weights == self.weights:  # ignore readings of a previous model or checkpoint
            self.show(message.reading)

    # ── tokens and target ────────────────────────────────────────────────────────────────────────────────────────

    def action_token_view(self) -> None:
        self.query_one(TokensPane).next_view()

    def action_vocabulary(self) -> None:
        self.lab.next_vocabulary()
        self.ask()

    def action_special(self) -> None:
        self.lab.allow_special = not self.lab.allow_special
        self.say(
            "special tokens in the text are read as " + ("special tokens" if self.lab.allow_special else "plain text")
        )
        self.ask()

    def action_start_token(self) -> None:
        self.lab.start_token = not self.lab.start_token
        self.ask()

    @on(TargetChosen)
    def _target_chosen(self, message: TargetChosen) -> None:
        self.lab.target = message.target
        self.ask()

    def action_target(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        before = self.lab.target.text if self.lab.target is not None else None

        def answered(text: str | None) -> None:
            if text is not None:
                self.lab.target = Target(text=text) if text else None
                self.ask()

        self.app.push_screen(
            AskScreen(
                "Target: what should come next",
                "Enter measures its loss · Esc cancels · a leading space counts",
                " " if before is None else before,
            ),
            answered,
        )

    def action_target_space(self) -> None:
        if self.lab.toggle_leading_space():
            self.ask()
        else:
            self.say("the target was chosen from the table; press t to type one")

    # ── other screens ────────────────────────────────────────────────────────────────────────────────────────────

    def action_runs(self) -> None:
        self.query_one(TrainingPane).choose_run()

    def action_cancel(self) -> None:
        if self._job is not None:
            self.stop_stream()
        elif self._busy is not None and self.weights is not None:
            self.stop_following()
            self.client.abandon()
            self.say("cancelled; the open model stays open")
        elif self.lab.position is not None:
            self.action_token_cursor_to(-1)
        elif self.zoomed:
            self.action_zoom()
