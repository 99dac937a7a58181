"""The mixin of every screen: it closes once, and lays itself out for the newest size only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.await_complete import AwaitComplete
from textual.widget import Widget

from tui_llm.tui.kit.widgets.bars import KeyBar

if TYPE_CHECKING:
    from textual.screen import Screen

    Base = Screen[Any]
else:
    Base = object


class BaseScreen(Base):
    """Mixin for a screen; in the bases it precedes Textual's class."""

    asks: ClassVar[bool] = False  # whether it only asks something, for the screen below
    tour_name: ClassVar[str] = "other"  # how the tour's checks call this screen, if they know it
    had_focus: Widget | None = None
    _pending_result: tuple[Any] | None = None
    _was_on_top = False

    @property
    def tour_view(self) -> str:
        """How the tour's checks call the view that this screen shows; empty if they know none."""
        return ""

    def on_screen_suspend(self) -> None:
        # A dialog leaves the footer in sight, whose letters are text in the dialog. The dialog names its own keys.
        self._show_keys(False)

    def _show_keys(self, shown: bool) -> None:
        for bar in self.query(KeyBar):
            bar.set_class(not shown, "-blank")  # not `visible`: a hidden widget learns nothing of a resize

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Closes this screen and no other. `Screen.dismiss` pops the top of the screen stack: a second Enter before the
        next repaint would close the screen below, or end the app. If another screen covers this one (a worker finishes
        while the palette is open), this one closes as soon as it is on top again."""
        stack = self.app.screen_stack
        if self not in stack[1:]:
            return AwaitComplete()
        if stack[-1] is not self:
            self._pending_result = (result,)
            return AwaitComplete()
        return super().dismiss(result)

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        if not self._was_on_top:  # its widgets got their styles when they were mounted, just now
            self._was_on_top, event.refresh_styles = True, False
        self._show_keys(True)
        if self._pending_result is not None:
            (result,), self._pending_result = self._pending_result, None
            self.dismiss(result)

    def _on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.had_focus = event.widget

    async def _on_resize(self, event: events.Resize) -> None:
        # While the terminal is being resized, a screen lays itself out for each size that it receives and posts that
        # size to itself. With two sizes in flight it would alternate between them for ever.
        if event.size != self.app.size:
            event.prevent_default()
