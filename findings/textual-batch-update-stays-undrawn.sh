#!/usr/bin/env bash
# textual 8.2.8: a change made during App.batch_update stays undrawn after the batch, until another message reaches the screen.
#
# Expected: what changed is drawn when the batch ends. Seen: `_end_batch` wakes the app's queue, not the screen's. If the screen
# has handled the widget's update while the batch lasted (an `await` inside it, or work in another task), the widget stays dirty.
# Here: `resume_drawing` of tui_llm/tui/kit/textual_private.py wakes the screen; tests/tui/test_key_order.py.
#
# Output seen:
#   two seconds after the batch the change is not drawn
#   after Screen.check_idle it is drawn
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textual==8.2.8
cat > "$folder/batch.py" <<'PYTHON'
import asyncio
import sys

from textual.app import App, ComposeResult
from textual.widgets import Static


class Batch(App[tuple[bool, bool]]):
    def compose(self) -> ComposeResult:
        yield Static("before")

    def on_mount(self) -> None:
        self.run_worker(self.change())

    async def change(self) -> None:
        await asyncio.sleep(0.5)
        with self.batch_update():
            self.query_one(Static).update("after")
            await asyncio.sleep(0.3)
        await asyncio.sleep(2)
        undrawn = bool(self.screen._dirty_widgets)
        self.screen.check_idle()
        await asyncio.sleep(0.5)
        self.exit((undrawn, bool(self.screen._dirty_widgets)))


undrawn, later = Batch().run(headless=True) or (False, False)
print(f"two seconds after the batch the change is {'not ' * undrawn}drawn")
print(f"after Screen.check_idle it is {'not ' * later}drawn")
sys.exit(not undrawn or later)
PYTHON
"$folder/venv/bin/python" "$folder/batch.py"
