"""The Textual app: opens the lab screen and holds what every screen uses. Imports no torch; the engine thread does."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual.actions import ActionParseResult
from textual.await_complete import AwaitComplete
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode
from textual.screen import Screen

from tui_llm.common.display import truncate, visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.facts.interventions import mark
from tui_llm.tui.kit.closing_keys import ClosingKeys
from tui_llm.tui.kit.command import PANES, Command, bindings
from tui_llm.tui.kit.end_signals import EndSignals
from tui_llm.tui.kit.key_order import KeyHandled, KeyOrder, Typed
from tui_llm.tui.kit.last_resort import LastResort
from tui_llm.tui.kit.live import is_live
from tui_llm.tui.kit.save import save_new
from tui_llm.tui.kit.text import reading_seconds
from tui_llm.tui.kit.textual_private import ResilientApp
from tui_llm.tui.kit.themes import DARK, colour_blind, next_palette, other_brightness, readable
from tui_llm.tui.lab.keys import ALL
from tui_llm.tui.lab.lab import LabScreen
from tui_llm.tui.state import messages, saved_state
from tui_llm.tui.state.engine_client import one_line

if TYPE_CHECKING:
    from textual.theme import Theme

    from tui_llm.facts.engine import Engine
    from tui_llm.tour.step import Lesson
    from tui_llm.tui.state.saved_state import SavedState
    from tui_llm.tui.state.state_file import StateWriter

WHAT_CELLS = 60  # cells of an internal error in a notification, which leaves room for the rest; the log has all of it


def key_of(id: str) -> str | None:
    """The key of a command of any screen, as a person reads it."""
    from tui_llm.tui.keymap import BY_ID  # imports every screen: only when it is needed

    return BY_ID[id].key_text if id in BY_ID else None


class CommandProvider(Provider):
    """Command palette provider: the same commands as the key bindings."""

    def _commands(self) -> Iterable[tuple[Command, Callable[[], object]]]:
        if isinstance(self.app, LabApp) and self.screen is self.app.lab_screen:
            commands = [*ALL, *self.app.opening]
        else:
            commands = [command for command in ALL if command.scope == "app"]
            commands += getattr(self.screen, "own_keys", ())
        for command in commands:
            if command.scope != "prompt":  # there is no text to edit from here
                yield command, self._runner(command)

    def _runner(self, command: Command) -> Callable[[], object]:
        async def run() -> None:
            target: DOMNode = self.app if command.scope == "app" else self.screen
            if command.scope in PANES and isinstance(self.screen, LabScreen):
                target = self.screen.panes[command.scope]
            await self.app.run_action(command.action, target)

        return run

    async def discover(self) -> Hits:
        for command, run in self._commands():
            yield DiscoveryHit(f"{command.label} ({command.key_text})", run, help=command.tooltip)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command, run in self._commands():
            words = f"{command.label} ({command.key_text}): {command.tooltip}"
            if (score := matcher.match(words)) > 0:
                yield Hit(score, matcher.highlight(words), run, help=command.group)


class LabApp(ResilientApp):
    TITLE = "tui-llm"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    COMMANDS: ClassVar[set[Any]] = {CommandProvider}
    BINDINGS = bindings(ALL, "app")
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        model: str = "nano",
        prompt: str = "The cat sat on the",
        tour: bool = False,
        lesson: Lesson | None = None,
        learner: str = "",
        saved: SavedState | None = None,
        writer: StateWriter | None = None,
    ) -> None:
        """`lesson` takes the place of the tour; `learner` is the name of the user in a class. `saved` comes back, but for model and prompt,
        which are given; `writer` keeps what changes for the next start."""
        self._themes: dict[str, Theme | None] = {}
        super().__init__()
        self.last_resort = LastResort()
        self.writer, self.problem_at_start = writer, ""
        self.bell_rings = True  # at news of the watched run; `on_terminal` also needs a stdout that is one
        self.on_terminal = False
        self._painted = False  # the first paint waits for no import of what writes files
        self.closing_keys = ClosingKeys()
        self.end_signals = EndSignals(lambda status: self.exit(return_code=status))
        self.key_order = KeyOrder(self, self._typed)
        self._keymap_loads = False
        self._trouble_until = 0.0  # `time.monotonic()` until which a shown error stays
        self.lab_screen = LabScreen(open_engine, model, prompt, key_of)
        self.lab_screen.open_tour_on_mount = tour or lesson is not None
        self.lab_screen.tour.lesson, self.lab_screen.tour.learner = lesson, learner
        for theme in (*readable(), *colour_blind()):
            self.register_theme(theme)
        self.theme = saved.theme if saved is not None and saved.theme in self.available_themes else DARK
        self.stylesheet.set_variables(self.get_css_variables())  # our theme's variables in place of Textual's
        if saved is not None:
            self._restore(saved)
        if writer is not None:
            self.lab_screen.context.state_changed = self._note_state
            writer.warn = self._warn_from_thread

    def get_theme(self, theme_name: str) -> Theme | None:
        """Keeps what it has found: Textual asks at each paint of each widget, and copies the table of all themes each time."""
        if theme_name not in self._themes:
            self._themes[theme_name] = super().get_theme(theme_name)
        return self._themes[theme_name]

    def register_theme(self, theme: Theme) -> None:
        self._themes.clear()
        super().register_theme(theme)

    def notify(self, message: str, *, severity: Any = "information", timeout: float | None = None, **more: Any) -> None:
        """Shows a notification in place of the earlier ones, unless one of them is an error whose timeout has not
        passed. It stays at least as long as it takes to read."""
        now = time.monotonic()
        timeout = max(self.NOTIFICATION_TIMEOUT if timeout is None else timeout, reading_seconds(message))
        if now >= self._trouble_until:
            self.clear_notifications()
            for screen in self.screen_stack[-1:]:
                screen.query("ToastHolder").remove()  # otherwise the empty holders keep their space
        if severity == "error":
            self._trouble_until = now + timeout
        super().notify(message, severity=severity, timeout=timeout, **more)

    @property
    def changed_model(self) -> str:
        """What marks the numbers of a changed model on every screen; empty if every part is on."""
        return mark(self.lab_screen.lab.interventions)

    def seen_of_text(self, later: int) -> str:
        """How much of the lab's text, without its `later` last tokens, the model sees; empty if all of it."""
        context = self.lab_screen.context
        seen = "" if context.reading is None else context.reading.seen_words(later)
        return f"{visible(context.model)} {seen}, its context" if seen else ""

    def get_default_screen(self) -> Screen[None]:
        return self.lab_screen

    def push_screen(self, screen: Any, *args: Any, **options: Any) -> Any:
        """Pushes a screen; an open tour is placed beside it."""
        pushed = super().push_screen(screen, *args, **options)
        self.lab_screen.tour.mount_beside(self.screen)
        return pushed

    def pop_screen(self) -> AwaitComplete:
        self.closing_keys.closed()
        self.key_order.closed()
        return super().pop_screen()

    # ── what comes back at the next start ────────────────────────────────────────────────────────────────────────

    def _restore(self, saved: SavedState) -> None:
        lab = self.lab_screen
        saved_state.restore(saved, lab.lab)
        lab.panes.current = saved.pane or lab.panes.current
        lab.zoomed = saved.flags.get("zoomed", False)
        self.bell_rings = saved.flags.get("bell", True)

    def _note_state(self) -> None:
        if self.writer is None or not self._painted:
            return
        screen, weights = self.lab_screen, self.lab_screen.weights
        lab = saved_state.of_lab(screen.lab, weights.name if weights is not None else "")
        self.writer.note(
            dataclasses.replace(
                lab,
                model=screen.context.client.opened,
                theme=self.theme,
                pane=screen.panes.current,
                flags={**lab.flags, "zoomed": screen.zoomed, "bell": self.bell_rings},
            )
        )

    def _warn_from_thread(self, line: str) -> None:
        self.lab_screen.post_message(messages.Failed("remembered", line))

    def on_mount(self) -> None:
        if self.problem_at_start:
            self.call_after_refresh(self.lab_screen.context.warn, self.problem_at_start)

    def watch_theme(self) -> None:
        self._note_state()

    # ── ends from outside ────────────────────────────────────────────────────────────────────────────────────────

    def on_load(self) -> None:
        if not self.is_headless:
            self.end_signals.listen()

    def end_by_closed_terminal(self) -> None:
        self.end_signals.end_by(signal.SIGHUP)

    # ── events at the wrong time ─────────────────────────────────────────────────────────────────────────────────

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent | events.Paste) and not event.is_forwarded:
            self.last_resort.input_came()
            if not self.lab_screen.is_mounted:  # no widget is mounted yet that could handle it
                self.lab_screen.call_later(self.post_message, event)
                return
            if isinstance(event, Typed):
                await self.key_order.take(event)
                return
        if not self._too_late(event) and not await self._opened(event):
            await super().on_event(event)

    async def _typed(self, event: Typed) -> None:
        if not self._too_late(event):
            await super().on_event(event)

    @on(KeyHandled)
    def _key_handled(self, event: KeyHandled) -> None:
        self.key_order.arrived(event)

    def _too_late(self, event: events.Event) -> bool:
        """Whether the event was meant for a screen that has closed."""
        if isinstance(event, events.Key) and event.is_forwarded:  # no widget handled it: bindings are checked next
            return getattr(event, "_aimed_at", self.screen) not in self.screen_stack
        if isinstance(event, events.Key):
            event._aimed_at = self.screen if self.screen_stack else None  # type: ignore[attr-defined]
            return not self.closing_keys.press(event.key, event.time)
        return isinstance(event, events.MouseDown) and not event.is_forwarded and self.closing_keys.unseen(event.time)

    async def _opened(self, event: events.Event) -> bool:
        """Whether the event was a key of the lab that only an instrument's screen states: it opens that screen."""
        if not isinstance(event, events.Key) or not event.is_forwarded or self.screen is not self.lab_screen:
            return False
        if "opening" not in vars(self) and event.key in self.screen.active_bindings:
            return False  # no reason to import every screen
        for command in self.opening:
            if event.key in command.keys.split(","):
                return await self.run_action(command.action, self.lab_screen)
        return False

    @cached_property
    def opening(self) -> tuple[Command, ...]:
        """The keys of the lab that open a screen, and that only the screen's module states."""
        from tui_llm.tui.keymap import OPENING

        return OPENING

    @on(messages.ReadingReady)
    def _load_keymap(self) -> None:
        """Once the first reading is painted, imports every screen in a thread, for a tenth of a second: the first key that needs
        one finds it there."""
        if not self._keymap_loads:
            self._keymap_loads = True
            thread = threading.Thread(target=lambda: self.opening, name="keymap", daemon=True)
            self.call_after_refresh(thread.start)

    def post_display_hook(self) -> None:
        if self.draws:
            self._painted = True
            self.closing_keys.painted(time.monotonic())
            self.last_resort.painted()

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Runs an action. Its namespace `focused` is the focused widget or, if the terminal has lost the focus, the one
        that had it."""
        had = getattr(self.screen, "had_focus", None)
        focused = self.focused or (had if had is not None and is_live(had) else self.screen)
        return await super().run_action(action, default_namespace, {"focused": focused, **(namespaces or {})})

    # ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────

    def report(self, error: BaseException, drawn: bool) -> None:
        show = self.last_resort.take(error, drawn=drawn)
        if self.last_resort.cannot_draw:
            self.give_up()
        elif show:
            if isinstance(error, UserError):
                line = visible(in_one_line(error))
            else:
                line = f"{truncate(visible(one_line(error)), WHAT_CELLS)}; {visible(self.last_resort.details)}"
            self.call_later(self.notify, line, markup=False, severity="error", timeout=8)

    def cannot_build(self, screen: Screen[Any], itself: bool) -> None:
        if screen in self.screen_stack[1:]:
            screen.dismiss(None)  # it may have no binding that closes it
        elif itself:
            self.give_up()

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def action_command_palette(self) -> None:
        from tui_llm.tui.kit.palette import Palette

        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def action_open(self, id: str) -> None:
        from tui_llm.tui.keymap import OPENERS

        OPENERS[id].open(self.lab_screen.context)

    def action_show_help(self) -> None:
        from tui_llm.tui.help import HelpScreen, place_of
        from tui_llm.tui.keymap import BY_ID, COMMANDS

        if not any(isinstance(screen, HelpScreen) for screen in self.screen_stack):
            self.push_screen(HelpScreen(COMMANDS, place_of(self.screen, BY_ID)))

    def action_save_picture(self) -> None:
        self.call_after_refresh(self._save_picture)  # if the palette started this, it has closed by then

    def _save_picture(self) -> None:
        try:
            picture = self.export_screenshot(title=self.TITLE).encode("utf-8", "replace").decode()
            path = save_new("screen", "svg", "pictures", picture)
        except UserError as error:
            self.notify(visible(str(error)), severity="error", markup=False, timeout=8)
        else:
            self.notify(visible(f"saved {path}"), markup=False, timeout=3)

    def action_switch_theme(self) -> None:
        self.theme = other_brightness(self.theme)

    def action_next_palette(self) -> None:
        self.theme = next_palette(self.theme)
        palette = self.theme.rpartition("-")[0]
        blind = "the usual colours" if palette == "textual" else f"colours for {palette}"
        self.notify(f"{blind}; theme {self.theme}", markup=False, timeout=3)

    @on(messages.RunNoticed)
    def _run_noticed(self, event: messages.RunNoticed) -> None:
        """Rings, and notifies the desktop. The panes show the news themselves."""
        from tui_llm.tui.notices import bytes_for

        event.stop()
        if self.bell_rings and self.on_terminal and not self.is_headless and self._driver is not None:
            self._driver.write(bytes_for("; ".join(event.lines), os.environ))
            self._driver.flush()

    def action_toggle_bell(self) -> None:
        self.bell_rings = not self.bell_rings
        self._note_state()
        when = "when the watched run is done, dies or raises an alarm"
        self.notify(f"{'rings' if self.bell_rings else 'does not ring'} {when}", markup=False, timeout=3)

    def action_tour(self) -> None:
        self.lab_screen.tour.toggle()

    def action_tour_move(self, direction: int) -> None:
        self.lab_screen.tour.move(direction)

    def action_tour_answer(self) -> None:
        self.lab_screen.tour.answer()
