"""The app: opens the lab, and carries what every screen needs. It imports no torch; the asker's thread does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import RenderableType
from textual.app import App
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode
from textual.screen import Screen

from tui_llm.display import visible
from tui_llm.errors import UserError
from tui_llm.tui.commands import COMMANDS, PANES, Command, bindings
from tui_llm.tui.saving import save_new
from tui_llm.tui.screens.lab import LabScreen
from tui_llm.tui.themes import DARK, LIGHT, readable

if TYPE_CHECKING:
    from tui_llm.reading import Engine


class CommandProvider(Provider):
    """The palette: the same commands as the keys."""

    def _commands(self) -> Iterable[tuple[Command, Callable[[], object]]]:
        lab = self.app.lab_screen if isinstance(self.app, LabApp) else None
        scopes = ("app", "lab", *PANES) if self.screen is lab else ("app", getattr(self.screen, "SCOPE", "app"))
        for command in COMMANDS:
            if command.scope in scopes:
                yield command, self._runner(command)

    def _runner(self, command: Command) -> Callable[[], object]:
        async def run() -> None:
            target: DOMNode = self.app if command.scope == "app" else self.screen
            if command.scope in PANES and isinstance(self.screen, LabScreen):
                target = self.screen.pane(command.scope)
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


class LabApp(App[None]):
    TITLE = "tui-llm"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    COMMANDS: ClassVar[set[Any]] = {CommandProvider}
    BINDINGS = bindings("app")
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        model: str = "nano",
        prompt: str = "The cat sat on the",
        tour: bool = False,
    ) -> None:
        super().__init__()
        self.panicked = False
        self._trouble_until = 0.0  # when an error that is shown goes away
        self.lab_screen = LabScreen(open_engine, model, prompt)
        self.lab_screen.tour_asked = tour
        for theme in readable():
            self.register_theme(theme)
        self.theme = DARK
        self.stylesheet.set_variables(self.get_css_variables())  # ours: made before, it has those of Textual's own DARK

    def panic(self, *renderables: RenderableType) -> None:
        """Textual's way out when something broke; remembered, so that the command line can say so in a line."""
        self.panicked = True
        super().panic(*renderables)

    def notify(self, message: str, *, severity: Any = "information", timeout: float | None = None, **more: Any) -> None:
        """Says it in the place of what was said before, which is old news; an error stays as long as it should."""
        now = time.monotonic()
        if now >= self._trouble_until:
            self.clear_notifications()
            for screen in self.screen_stack[-1:]:
                screen.query("ToastHolder").remove()  # their room would stay
        if severity == "error":
            self._trouble_until = now + (self.NOTIFICATION_TIMEOUT if timeout is None else timeout)
        super().notify(message, severity=severity, timeout=timeout, **more)

    def get_default_screen(self) -> Screen[None]:
        return self.lab_screen

    def push_screen(self, screen: Any, *args: Any, **options: Any) -> Any:
        """The tour, where it is open, stands beside every screen."""
        pushed = super().push_screen(screen, *args, **options)
        self.lab_screen.stand_beside(self.screen)
        return pushed

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def action_show_help(self) -> None:
        from tui_llm.tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_save_picture(self) -> None:
        self.call_after_refresh(self._save_picture)  # the palette it may come from is gone by then

    def _save_picture(self) -> None:
        try:
            picture = self.export_screenshot(title=self.TITLE).encode("utf-8", "replace").decode()
            path = save_new("screen", "svg", "pictures", picture)
        except UserError as error:
            self.notify(visible(str(error)), severity="error", markup=False, timeout=8)
        else:
            self.notify(visible(f"saved {path}"), markup=False, timeout=3)

    def action_switch_theme(self) -> None:
        self.theme = LIGHT if self.current_theme.dark else DARK

    def action_tour(self) -> None:
        self.lab_screen.open_or_close_tour()

    def action_tour_move(self, direction: int) -> None:
        self.lab_screen.move_tour(direction)

    def action_tour_answer(self) -> None:
        self.lab_screen.answer_tour()
