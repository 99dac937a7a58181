"""The lab screen: one prompt, five panes. Lays them out, gives each message to its controller and each key its action."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from tui_llm.facts.engine import Engine
from tui_llm.facts.model import Weights
from tui_llm.facts.reading import Reading
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import PANES, bindings
from tui_llm.tui.kit.widgets.bars import KeyBar, TabBar, TopBar
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.lab.candidate_table import CandidateTableController
from tui_llm.tui.lab.changed_model import ChangedModelController
from tui_llm.tui.lab.copy_save import CopySaveController
from tui_llm.tui.lab.follow_run import FollowRunController
from tui_llm.tui.lab.footer import FooterController
from tui_llm.tui.lab.generation import GenerationController
from tui_llm.tui.lab.ghost_text import GhostTextController
from tui_llm.tui.lab.inside import InsideController
from tui_llm.tui.lab.keys import ALL
from tui_llm.tui.lab.loss import LossController
from tui_llm.tui.lab.models import ModelsController
from tui_llm.tui.lab.pane_layout import PaneGrid
from tui_llm.tui.lab.panes.logits import changes_words
from tui_llm.tui.lab.panes.panes import LabPanes
from tui_llm.tui.lab.pins import PinsController
from tui_llm.tui.lab.readings import ReadingsController
from tui_llm.tui.lab.sampler import SamplerController
from tui_llm.tui.lab.steering import SteeringController
from tui_llm.tui.lab.swap import SwapController
from tui_llm.tui.lab.target import TargetController
from tui_llm.tui.lab.token_cursor import TokenCursorController
from tui_llm.tui.lab.token_settings import TokenSettingsController
from tui_llm.tui.lab.top_line import TopLineController
from tui_llm.tui.lab.tour import TourController
from tui_llm.tui.lab.tree import TreeController
from tui_llm.tui.lab.undo import UndoController
from tui_llm.tui.state import messages
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.lab import Lab

NARROW, LOW = 100, 30  # columns and rows at which the layout changes


class LabScreen(BaseScreen, Screen[None]):
    tour_name = "lab"
    BINDINGS = bindings(ALL, "lab")

    def __init__(
        self, open_engine: Callable[[], Engine], model: str, prompt: str, key_of: Callable[[str], str | None]
    ) -> None:
        """`key_of` returns the key of a command, given its id."""
        super().__init__()
        self.model = model
        self.fallback_model = ""  # opened if `model`, which was open at the last start, can't be
        self.open_tour_on_mount = False  # open the tour once the screen is mounted
        self.zoomed = False
        self.lab = Lab(prompt=prompt)
        self.prompt = PromptEditor(prompt, id="prompt")
        self.panes = panes = LabPanes(self.lab)
        self.context = context = LabContext(self, self.lab, open_engine)

        self.readings = ReadingsController(context, self.prompt, panes)
        self.generation = GenerationController(context)
        self.ghost_text = GhostTextController(context, self.prompt, lambda: self.generation.job is not None)
        self.undo = UndoController(
            context, self.prompt, lambda: self.ghost_text.hint, lambda typing: self.tour.line(typing)
        )
        self.sampler = SamplerController(context)
        self.steering = SteeringController(context)
        self.candidate_table = CandidateTableController(context, panes.logits)
        self.target = TargetController(context)
        self.loss = LossController(context, panes.loss)
        self.token_cursor = TokenCursorController(context)
        self.token_settings = TokenSettingsController(context)
        self.swap = SwapController(context, lambda: self.token_cursor.move(-1))
        self.inside = InsideController(context)
        self.token_tree = TreeController(context)
        self.follow_run = FollowRunController(context, panes.training)
        self.models = ModelsController(context, self.follow_run.stop)
        self.changed_model = ChangedModelController(context)
        self.pins = PinsController(context, panes.training)
        self.copy_save = CopySaveController(context, panes.table, lambda: panes.current != "training")
        self.top_line = TopLineController(context, TopBar(id="top"), self._model_words)
        self.tour = TourController(context, panes, self._fit_tour, key_of)
        self.footer = FooterController(KeyBar(id="keys"), panes, self.tour)

        context.request_reading = self.readings.request
        context.show_reading = self._show_reading
        context.show_top = self.top_line.show
        context.show_history = self.undo.show
        context.refresh_generation = lambda: panes.generate.show(None)
        context.set_prompt = self._set_prompt
        context.intervene = self.changed_model.set
        context.switch, context.wanted_parts = self.changed_model.switch, lambda: self.changed_model.wanted
        context.generate = self.generation.generate
        context.stop_generation = self.generation.stop
        context.open_model = self.models.open
        self._set_actions()

    def _set_actions(self) -> None:
        """The actions of the keys. Textual looks up an action as an attribute of the node that has the binding."""
        self.action_type = lambda: self.set_focus(self.prompt)
        self.action_ghost = self.ghost_text.toggle
        self.action_undo_text = self.undo.undo
        self.action_redo_text = self.undo.redo
        self.action_token_view = self.panes.tokens.next_view
        self.action_vocabulary = self.token_settings.next_vocabulary
        self.action_special = self.token_settings.toggle_special
        self.action_start_token = self.token_settings.toggle_start_token
        self.action_chat = self.token_settings.toggle_chat
        self.action_colour_by = self.token_settings.next_colour
        self.action_token_cursor = self.token_cursor.move
        self.action_token_cursor_to = self.token_cursor.move_to
        self.action_swap = self.swap.open
        self.action_inside = self.inside.open
        self.action_target = self.target.type
        self.action_target_space = self.target.toggle_space
        self.action_temperature = self.sampler.temperature
        self.action_top_p = self.sampler.top_p
        self.action_top_k = self.sampler.top_k
        self.action_min_p = self.sampler.min_p
        self.action_sampler_form = self.sampler.open_form
        self.action_steer = self.steering.coefficient
        self.action_scratch = self.candidate_table.open_scratch
        self.action_draw = self.generation.draw
        self.action_stream = self.generation.stream
        self.action_clear_tokens = self.generation.clear
        self.action_seed = self.generation.new_seed
        self.action_models = self.models.choose
        self.action_runs = self.panes.training.choose_run
        self.action_follow = self.follow_run.toggle
        self.action_pin = self.pins.toggle
        self.action_copy_pane = self.copy_save.copy_pane
        self.action_copy_json = self.copy_save.copy_json
        self.action_save = self.copy_save.save
        self.action_parts_on = self.changed_model.all_on

    @property
    def weights(self) -> Weights | None:
        return self.context.weights

    @property
    def reading(self) -> Reading | None:
        return self.context.reading

    # ── layout ───────────────────────────────────────────────────────────────────────────────────────────────────

    def compose(self) -> ComposeResult:
        yield self.top_line.bar
        yield self.prompt
        yield TabBar(id="tabs")
        yield PaneGrid(*self.panes.by_name.values())
        yield self.footer.bar

    def on_mount(self) -> None:
        self.prompt.border_title = Text("Prompt")
        self.prompt.focus()
        self.top_line.bar.show_busy("starting", 0, "")
        self._arrange()
        # After the first paint, as this imports torch.
        self.call_after_refresh(self.context.client.start, self.model, self.fallback_model)
        if self.open_tour_on_mount:
            self.call_after_refresh(self.tour.toggle)

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        self.context.client.release()  # the screens over the lab have closed

    def on_unmount(self) -> None:
        self.context.client.close()

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """Shows one pane, or two columns of panes, depending on the size."""
        taken = self.tour.room(self.size)
        width, height = self.size.width - taken.width, self.size.height - taken.height
        single = width < NARROW or height < LOW
        self.set_class(single, "-single")
        self.set_class(height < 16, "-low")
        for name in PANES:
            self.panes[name].display = not (single or self.zoomed) or name == self.panes.current
        self.query_one(TabBar).show(self.panes.current)
        self.call_after_refresh(self.footer.bar.show_overflow)
        self.context.state_changed()

    def _fit_tour(self) -> None:
        """Lays the panes out beside the tour, or without it."""
        self._arrange()
        self.footer.show(self._place(self.focused or self.prompt))
        self.undo.show()

    @property
    def one_at_a_time(self) -> bool:
        return self.zoomed or self.has_class("-single")

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        place = self._place(event.widget)
        if place in PANES and place != self.panes.current:
            self.panes.current = place
            self._arrange()
        typing = place == "prompt"
        self.prompt.border_title = Text("Prompt · typing: Esc when done" if typing else "Prompt · i edits")
        self.footer.show(place)
        self.undo.show()
        if typing:
            self.ghost_text.wait()

    def _place(self, widget: Widget) -> str:
        """The name of the pane (or the prompt) that contains a widget."""
        for node in widget.ancestors_with_self:
            if isinstance(node, Widget) and node.id in (*PANES, "prompt"):
                return str(node.id)
        return "prompt"

    def action_pane(self, name: str) -> None:
        self.panes.current = name
        self._arrange()
        pane = self.panes[name]
        # At once: `Widget.focus` queues it behind keys that were pressed meanwhile, which would go to the pane before.
        self.set_focus(pane if pane.can_focus else next((w for w in pane.query("*") if w.focusable), None))

    def action_cycle(self, direction: int) -> None:
        """Moves the focus to the next widget: within the pane first, then in the next pane."""
        chain, focused = self.focus_chain, self.focused
        if not self.one_at_a_time or focused is None:
            self.focus_next() if direction > 0 else self.focus_previous()
            return
        at = chain.index(focused) + direction if focused in chain else 0
        if 0 <= at < len(chain) and self._place(chain[at]) == self._place(focused):
            self.set_focus(chain[at])
            return
        places = ("prompt", *PANES)
        place = places[(places.index(self._place(focused)) + direction) % len(places)]
        if place == "prompt":
            self.set_focus(self.prompt)
        else:
            self.action_pane(place)

    def action_zoom(self) -> None:
        self.zoomed = not self.zoomed
        self._arrange()

    def action_cancel(self) -> None:
        """Stops what is going on or, if nothing is, leaves the token cursor, then the zoomed pane."""
        if self.generation.job is not None:
            self.generation.stop()
        elif self.top_line.busy and self.weights is not None:
            self.follow_run.stop()
            self.context.client.abandon()
            self.context.notify("cancelled; the open model stays open")
        elif self.lab.position is not None:
            self.token_cursor.move_to(-1)
        elif self.zoomed:
            self.action_zoom()
        elif self.tour.unused:
            self.tour.dismiss()

    # ── what several controllers do together ─────────────────────────────────────────────────────────────────────

    def _set_prompt(self, text: str) -> None:
        self.prompt.set_text(text)
        self.lab.prompt = self.prompt.prompt_text

    def _show_reading(self, reading: Reading) -> None:
        with self.app.batch_update():
            self.readings.show(reading)
            self.top_line.problem = ""
            self.top_line.show()
        if self.context.reading_is_current:
            self.ghost_text.wait()

    def _model_words(self) -> list[str]:
        """The words after the model in the top line: foreign text."""
        return [self.follow_run.words, *(f" · {words}" for words in changes_words(self.reading))]

    @on(PromptEditor.Edited)
    def _prompt_edited(self) -> None:
        text = self.prompt.prompt_text
        if text != self.lab.prompt:
            self.lab.prompt = text
            self.ghost_text.drop()
            self.generation.prompt_edited()
            self.changed_model.prompt_edited()
            self.readings.request()

    @on(messages.ModelOpened)
    def _opened(self, message: messages.ModelOpened) -> None:
        before, self.context.weights = self.weights, message.weights
        self.lab.drop_changes()
        if message.fresh:
            self.models.opened(before, message.weights)
            self.changed_model.opened(before, message.weights)
            self.prompt.show_ghost(())
        self.top_line.problem = ""
        if message.weights.note:
            self.context.warn(message.weights.note)
        self.top_line.show()
        self.readings.request()
        self.context.reopened(message.weights)

    @on(messages.Failed)
    def _failed(self, message: messages.Failed) -> None:
        stays_open = message.what == "open" and self.weights is not None
        if stays_open or message.what in ("generate", "models", "remembered"):
            return self.context.warn(message.line)
        self.top_line.problem = message.line
        return self.top_line.show()

    @on(messages.ReadingReady)
    def _reading_ready(self, message: messages.ReadingReady) -> None:
        if self.readings.is_of_the_lab(message.reading):
            self._show_reading(message.reading)

    @on(messages.Answered)
    def _answered(self, message: messages.Answered) -> None:
        self.tour.answered(message)
        self.context.questions.answered(message)

    @on(messages.EngineProgress)
    def _progress(self, message: messages.EngineProgress) -> None:
        self.top_line.progress(message)

    @on(messages.Drawn)
    def _drawn(self, message: messages.Drawn) -> None:
        self.generation.drawn(message)

    @on(messages.GenerationEnded)
    def _generation_ended(self, message: messages.GenerationEnded) -> None:
        self.generation.ended(message)

    @on(messages.ModelsListed)
    def _models_listed(self, message: messages.ModelsListed) -> None:
        self.models.listed(message)

    @on(messages.ModelChosen)
    def _model_chosen(self, message: messages.ModelChosen) -> None:
        self.models.open(message.model)

    @on(messages.CheckpointSaved)
    def _checkpoint_saved(self) -> None:
        self.follow_run.open_newest()

    @on(messages.RunWatched)
    def _run_watched(self) -> None:
        self.top_line.show()

    @on(messages.TargetChosen)
    def _target_chosen(self, message: messages.TargetChosen) -> None:
        self.target.choose(message.target)

    @on(messages.RowsWanted)
    def _rows_wanted(self, message: messages.RowsWanted) -> None:
        self.candidate_table.load_rows(message)

    @on(messages.TableCommand)
    def _table_command(self, message: messages.TableCommand) -> None:
        self.candidate_table.do(message)

    @on(messages.GradientWanted)
    def _gradient_wanted(self, message: messages.GradientWanted) -> None:
        self.loss.ask_gradient(message)

    @on(messages.LearnWanted)
    def _learn_wanted(self) -> None:
        self.loss.learn()

    @on(messages.StepShown)
    def _step_shown(self, message: messages.StepShown) -> None:
        self.generation.show_step(message)

    @on(messages.TokensAccepted)
    def _tokens_accepted(self) -> None:
        self.generation.accept()

    @on(messages.TreeWanted)
    def _tree_wanted(self) -> None:
        self.token_tree.open()

    @on(PromptEditor.TypingDone)
    def _done_typing(self) -> None:
        self.action_pane(self.panes.current)

    @on(PromptEditor.UndoRequested)
    def _undo_requested(self) -> None:
        self.undo.undo()

    @on(PromptEditor.RedoRequested)
    def _redo_requested(self) -> None:
        self.undo.redo()
