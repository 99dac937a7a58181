"""What every screen shares: it closes once, whatever comes, and lays itself out for the newest size only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import events
from textual.await_complete import AwaitComplete
from textual.widget import Widget

if TYPE_CHECKING:
    from textual.screen import Screen

    Base = Screen[Any]
else:
    Base = object


class BaseScreen(Base):
    """Mixed into a screen, before Textual's class."""

    had_focus: Widget | None = None
    _pending_result: tuple[Any] | None = None

    def dismiss(self, result: Any = None) -> AwaitComplete:
        """Closes this screen, and no other one. `Screen.dismiss` pops whichever screen is on top: a second Enter within one
        paint would close the screen below, or end the app. Where another screen covers this one (a worker is done while the
        palette is open), it closes as soon as it is on top again."""
        stack = self.app.screen_stack
        if self not in stack[1:]:
            return AwaitComplete()
        if stack[-1] is not self:
            self._pending_result = (result,)
            return AwaitComplete()
        return super().dismiss(result)

    def on_screen_resume(self) -> None:
        if self._pending_result is not None:
            (result,), self._pending_result = self._pending_result, None
            self.dismiss(result)

    def _on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.had_focus = event.widget

    async def _on_resize(self, event: events.Resize) -> None:
        # A window that is dragged: a screen lays itself out for each size that it hears of and posts that size to itself.
        # With two of them under way at once they would take turns for ever.
        if event.size != self.app.size:
            event.prevent_default()
