"""The private names of Textual (8.2) that the app needs, all in this file and, for styles, in textual_styles.py.

`tests/tui/test_last_resort.py` fails if they are gone, or once Textual goes on after an exception by itself.

Textual ends the app at the first uncaught exception of a handler, a callback, a timer, a worker or a render
(`App._handle_exception`), and by then the message loop of the widget whose handler raised has ended. There is no
public way to go on. So `_handle_exception` only reports, and the wrappers below keep an exception from ending the loop
in which it was raised:

- `MessagePump._dispatch_message`: a message's handlers, `compose` and `on_mount`. The widget goes on with its next
  message.
- `DOMNode._post_mount`: the watchers of a widget that has just been mounted.
- `MessagePump.call_next` and `Screen._invoke_later`: one callback that raises would cancel those queued after it.
- `OptionList._move_page` looks up the line of the highlighted option, which has none while the list has no room (the
  palette in a terminal of two rows): PgUp and PgDn raise KeyError. They do nothing then.
- `Content._wrap_and_format` wraps a text to no columns where a list is as narrow as the padding of its options (the palette
  in a terminal of three columns): ValueError. It wraps to one column there.
- `Screen.get_widget_and_offset_at` finds widgets by the last layout. A mouse button that is pressed between the removal of
  a widget and the next layout raises AttributeError, as the widget has no parent. It finds none there.
- `Strip.__init__`: Textual makes seven caches for each line that it draws or cuts. Most stay empty, and making them took a
  tenth of the time in which screens are drawn. `_strip_cache` makes one when it is used.
- `BackgroundScreen.process_segments` tints the screen below a dialog, and computes the tint of each segment's style
  anew at each repaint. `_tint` computes it once for each style. `Below` makes the tinted lines; through Rich's console, which
  copies each segment several times, a dialog took twice as long to draw.
- `Strip.render_ansi` and `Segment._split_cells` (Rich's) each keep their last 16,384 results, with the styles. Most
  styles name their text's place, so that these caches fill with what was on the screen long ago. `hold_less` has them keep
  `CACHED` results.
- `Widget.refresh` with `layout` counts a change once until the widget is next idle, and keeps the widget's size by that count.
  If the screen is laid out in between, a size that changes afterwards is never taken over: a table whose height is that
  of its rows stayed empty. Here each change counts.
- A signal's table has weak keys, the widgets, but each callback in it refers to its widget. A removed one that follows the
  theme's changes would stay in memory until the next change, with its screen and all that it shows. Here it is taken out.
- `Widget._render` and `Widget.render_lines`: one widget that can't be drawn would keep the whole screen from being
  drawn.

Timers and workers call `_handle_exception` themselves. Apps that are not a `ResilientApp` end as usual in Textual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from inspect import isawaitable
from typing import Any, Literal

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual._context import active_app, active_message_pump
from textual.app import App
from textual.cache import FIFOCache
from textual.color import Color
from textual.content import Content
from textual.css.query import NoMatches
from textual.dom import DOMNode, NoScreen
from textual.geometry import Offset, Region
from textual.message import Message
from textual.message_pump import MessagePump
from textual.renderables.background_screen import BackgroundScreen
from textual.screen import Screen
from textual.strip import Strip
from textual.style import Style as VisualStyle
from textual.visual import RenderOptions, RichVisual, Visual, visualize
from textual.widget import Widget
from textual.widgets import OptionList
from textual.worker import WorkerFailed

from tui_llm.tui.kit import textual_styles
from tui_llm.tui.kit.live import is_live

NOT_DRAWN = "this can't be drawn"


class ResilientApp(App[None]):
    """An app that goes on after an exception; `report` decides what to do about it."""

    _gave_up = False

    def report(self, error: BaseException, drawn: bool) -> None:
        """Handles an uncaught exception. `drawn`: it kept one widget from being drawn, but the rest was drawn."""
        raise NotImplementedError

    def cannot_build(self, screen: Screen[Any], itself: bool) -> None:
        """Handles a screen (`itself`), or a widget on it, that raised while it was being mounted."""
        raise NotImplementedError

    def _handle_exception(self, error: Exception) -> None:
        self._caught(error)

    def _caught(self, error: BaseException, drawn: bool = False) -> None:
        if isinstance(error, WorkerFailed):
            error = error.error
        node = active_message_pump.get(None)
        if (
            isinstance(error, NoMatches | NoScreen)
            and isinstance(node, Widget)
            and node.is_mounted
            and not is_live(node)
        ):
            return  # the widget is being removed, and what it queried is already gone
        if self.is_headless and self._exception is None and isinstance(error, Exception):
            self._exception = error  # fails a test that runs the app
            self._exception_event.set()
        self.report(error, drawn)
        if isinstance(node, Widget) and not drawn and not node.is_mounted:
            try:
                screen = node.screen
            except NoScreen:
                return
            if not screen.is_mounted:
                self.call_later(self.cannot_build, screen, node is screen)

    def give_up(self) -> None:
        """Ends the app at once, without handling further exceptions."""
        self._gave_up = True
        self._return_code = 1
        self._close_messages_no_wait()

    def panic(self, *renderables: Any) -> None:
        self._gave_up = True
        super().panic(*renderables)

    async def _on_exit_app(self) -> None:
        self._exit = True  # if nothing else requested the exit, a browser's tab was closed
        await super()._on_exit_app()

    @property
    def draws(self) -> bool:
        """Whether drawing is sent to the terminal, not held back by `batch_update`."""
        return not self._batch_count

    def pause_drawing(self) -> None:
        """Draws nothing until `resume_drawing`. Unlike `batch_update`, the two need not be in one block."""
        self._begin_batch()

    def resume_drawing(self) -> None:
        self._end_batch()
        # Textual draws when a screen is next idle, and `_end_batch` wakes only the app: without a further message, such as a
        # key, what changed meanwhile would not be drawn, on the screen or on those that can be seen below a dialog.
        if not self._batch_count and self._screen_stack:
            for screen in (self.screen, *self._background_screens):
                screen.check_idle()

    @property
    def failed(self) -> bool:
        """Whether the app ended by itself: neither the user nor a closed browser tab requested it."""
        return self._gave_up or not self._exit


def _resilient() -> ResilientApp | None:
    app = active_app.get(None)
    return app if isinstance(app, ResilientApp) else None


_SYSTEM = ("textual.events", "textual.messages")


def is_late(node: MessagePump, message: Message) -> bool:
    """Whether a message was posted to a screen that has closed: a second Enter, an answer. The messages with which
    Textual removes a screen are never late."""
    if not isinstance(node, Screen) or not node.is_mounted or is_live(node):
        return False
    return type(message).__module__ not in _SYSTEM or isinstance(message, events.InputEvent | events.Timer)


_dispatch_message = MessagePump._dispatch_message
_post_mount = DOMNode._post_mount
_call_next = MessagePump.call_next
_invoke_later = Screen._invoke_later
_refresh = Widget.refresh
_render = Widget._render
_render_lines = Widget.render_lines
_move_page = OptionList._move_page
_wrap_and_format = Content._wrap_and_format
_get_widget_and_offset_at = Screen.get_widget_and_offset_at


async def dispatch_message(self: MessagePump, message: Message) -> None:
    app = _resilient()
    if app is None:
        await _dispatch_message(self, message)
    elif not is_late(self, message):
        try:
            await _dispatch_message(self, message)
        except Exception as error:
            app._caught(error)
        if isinstance(message, events.Unmount) and isinstance(self, Widget):
            app.theme_changed_signal.unsubscribe(self)


def post_mount(self: DOMNode) -> None:
    app = _resilient()
    try:
        _post_mount(self)  # type: ignore[no-untyped-call]
    except Exception as error:
        if app is None:
            raise
        app._caught(error)


def guarded(app: ResilientApp, callback: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[[], Any]:
    async def call() -> None:
        try:
            result = callback(*arguments, **named)
            if isawaitable(result):
                await result
        except Exception as error:
            app._caught(error)

    return call


def call_next(self: MessagePump, callback: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    app = _resilient()
    if app is None:
        _call_next(self, callback, *arguments, **named)
    else:
        _call_next(self, guarded(app, callback, *arguments, **named))


def invoke_later(self: Screen[Any], callback: Callable[..., Any], sender: MessagePump) -> None:
    app = _resilient()
    _invoke_later(self, callback if app is None else guarded(app, callback), sender)


def refresh(
    self: Widget, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False
) -> Widget:
    if layout and self._layout_required:
        self._layout_updates += 1
    return _refresh(self, *regions, repaint=repaint, layout=layout, recompose=recompose)


def render(self: Widget) -> Visual:
    app = _resilient()
    try:
        return _render(self)
    except Exception as error:
        if app is None:
            raise
        app._caught(error, drawn=True)
        return visualize(self, Content(NOT_DRAWN))


def render_lines(self: Widget, crop: Region) -> list[Strip]:
    app = _resilient()
    try:
        return _render_lines(self, crop)
    except Exception as error:
        if app is None:
            raise
        app._caught(error, drawn=True)
        return [Strip.blank(crop.width)] * crop.height


def move_page(self: OptionList, direction: Literal[-1, 1]) -> None:
    if (self.highlighted or 0) in self._index_to_line:
        _move_page(self, direction)


def wrap_and_format(self: Content, width: int, *arguments: Any, **named: Any) -> Any:
    return _wrap_and_format(self, max(1 + 2 * named.get("line_pad", 0), width), *arguments, **named)


def get_widget_and_offset_at(self: Screen[Any], x: int, y: int) -> tuple[Widget | None, Offset | None]:
    widget, offset = _get_widget_and_offset_at(self, x, y)
    removed = widget is not None and widget.parent is None and widget is not self
    return (None, None) if removed else (widget, offset)


STRIP_CACHES = {
    "_divide_cache": 4,
    "_crop_cache": 16,
    "_style_cache": 16,
    "_filter_cache": 4,
    "_line_length_cache": 4,
    "_crop_extend_cache": 4,
    "_offsets_cache": 4,
}
"""The caches of a strip, and how much each holds."""
STRIP_VALUES = ("_segments", "_cell_length", "_render_cache", "_link_ids", "_cell_count")


def _strip_init(self: Strip, segments: Iterable[Segment], cell_length: int | None = None) -> None:
    self._segments = list(segments)
    self._cell_length = cell_length
    self._render_cache = self._link_ids = self._cell_count = None


def _strip_cache(self: Strip, name: str) -> FIFOCache[Any, Any]:
    """The cache of that name, at its first use: its slot was empty."""
    if name not in STRIP_CACHES:
        raise AttributeError(name)
    cache: FIFOCache[Any, Any] = FIFOCache(STRIP_CACHES[name])
    setattr(self, name, cache)
    return cache


CACHED = 4096
"""How many results a cache of styles or segments keeps: more than a screen of 200×60 has."""


def hold_less(owner: type, name: str) -> None:
    """Have a cached class method keep at most `CACHED` results."""
    function: Any = lru_cache(CACHED)(vars(owner)[name].__func__.__wrapped__)
    setattr(owner, name, classmethod(function))


_process_segments = BackgroundScreen.process_segments


@lru_cache(CACHED)
def _tint(style: Style | None, colour: Color) -> Style | None:
    (segment,) = _process_segments([Segment("", style)], colour)
    return segment.style


def process_segments(segments: Iterable[Segment], colour: Color) -> Iterable[Segment]:
    """The segments of the screen below a dialog, tinted with `colour`."""
    return (segment if segment.control else Segment(segment.text, _tint(segment.style, colour)) for segment in segments)


class Below(RichVisual):
    """The screen below a dialog, as the dialog's background."""

    def render_strips(self, width: int, height: int | None, style: VisualStyle, options: RenderOptions) -> list[Strip]:
        below = self._renderable
        assert isinstance(below, BackgroundScreen)
        base, colour = style.rich_style, below.color
        lines = below.screen._compositor.render_strips()[:height]
        tinted = [Strip([Segment(text, _tint_on(base, own, colour)) for text, own, _ in line]) for line in lines]
        return [line.crop(0, width) for line in tinted]


@lru_cache(CACHED)
def _tint_on(base: Style, style: Style | None, colour: Color) -> Style:
    return base + _tint(style, colour)


textual_styles.install()
BackgroundScreen.visualize = lambda self: Below(self.screen, self)  # type: ignore[attr-defined]
BackgroundScreen.process_segments = staticmethod(process_segments)  # type: ignore[method-assign, assignment]
_textual_strip_init = Strip.__init__
if {*Strip.__slots__} == {*STRIP_CACHES, *STRIP_VALUES}:  # as in Textual 8.2
    Strip.__init__ = _strip_init  # type: ignore[method-assign]
    Strip.__getattr__ = _strip_cache  # type: ignore[attr-defined]
hold_less(Strip, "render_ansi")
hold_less(Segment, "_split_cells")
OptionList._move_page = move_page  # type: ignore[method-assign]
Content._wrap_and_format = wrap_and_format  # type: ignore[method-assign]
MessagePump._dispatch_message = dispatch_message  # type: ignore[method-assign]
DOMNode._post_mount = post_mount  # type: ignore[method-assign]
MessagePump.call_next = call_next  # type: ignore[method-assign]
Screen.get_widget_and_offset_at = get_widget_and_offset_at  # type: ignore[method-assign]
Screen._invoke_later = invoke_later  # type: ignore[method-assign]
Widget.refresh = refresh  # type: ignore[method-assign, assignment]
Widget._render = render  # type: ignore[method-assign]
Widget.render_lines = render_lines  # type: ignore[method-assign]
