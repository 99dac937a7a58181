#!/usr/bin/env bash
# textual 8.2.8: a widget that subscribed to a signal of the app stays in memory after its removal, until the signal's next publish.
#
# Expected: `Signal` keeps its subscriptions in a WeakKeyDictionary, so that a removed widget is collected. Seen: it is not, nor is
# the screen that it was on, as the table's value, the callback that `subscribe` makes, refers to the widget, its key. `publish` drops
# such entries; the theme's signal is published only if the theme changes, so that a session that opens a screen often grows.
# Textual's own charts (textual-plotext) subscribe so. `Signal.unsubscribe` in the widget's `on_unmount` frees it.
# Here: `dispatch_message` of tui_llm/tui/kit/textual_private.py; tests/tui/test_freed_widgets.py.
#
# Output seen:
#   after removal: 20 of 20 widgets in memory
#   after a change of the theme: 0 of 20 widgets in memory
#   unsubscribed when unmounted: 0 of 20 widgets in memory
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textual==8.2.8 rich==15.0.0
cat > "$folder/kept.py" <<'PYTHON'
import asyncio
import gc
import sys
import weakref

from textual.app import App
from textual.widgets import Static

COUNT = 20


class Follows(Static):
    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda theme: self.refresh())


class Unsubscribes(Follows):
    def on_unmount(self) -> None:
        self.app.theme_changed_signal.unsubscribe(self)


async def main() -> bool:
    app = App()
    async with app.run_test() as pilot:

        async def removed(kind: type[Follows]) -> "weakref.ref[Follows]":
            widget = kind()
            await app.screen.mount(widget)
            await pilot.pause()
            await widget.remove()
            await pilot.pause()
            return weakref.ref(widget)

        async def kept(refs: list["weakref.ref[Follows]"]) -> int:
            await removed(Unsubscribes)  # what was handled last may still be referred to
            gc.collect()
            return sum(one() is not None for one in refs)

        follows = [await removed(Follows) for _ in range(COUNT)]
        before = await kept(follows)
        app.theme = "textual-light"
        await pilot.pause()
        after = await kept(follows)
        unsubscribed = await kept([await removed(Unsubscribes) for _ in range(COUNT)])
    print(f"after removal: {before} of {COUNT} widgets in memory")
    print(f"after a change of the theme: {after} of {COUNT} widgets in memory")
    print(f"unsubscribed when unmounted: {unsubscribed} of {COUNT} widgets in memory")
    return (before, after, unsubscribed) == (COUNT, 0, 0)


sys.exit(not asyncio.run(main()))
PYTHON
"$folder/venv/bin/python" "$folder/kept.py"
