#!/usr/bin/env bash
# textual 8.2.8: a DataTable with `height: auto` that is shown and filled in an async handler stays at height 0 if the handler
# then awaits something.
#
# Expected: the table is as high as its rows once they are measured, whenever that is. Seen: `Widget.refresh(layout=True)` counts
# a change (`_layout_updates`) once until the widget's next idle, and `_get_box_model` keeps the widget's size by that
# count. A layout between the change and the idle, at which a table measures its rows, stores the height of no rows
# under the new count; the measured height is not counted, and each later layout takes the stored one. The await makes this
# certain; without one it takes a busy machine. Near it: https://github.com/Textualize/textual/issues/3160 (a container).
# Here: `refresh` of tui_llm/tui/kit/textual_private.py counts each change; tests/tui/test_run_actions.py.
#
# Output seen:
#   no await: the table's size is 80×3, its rows need 6×3
#   an await after it: the table's size is 80×0, its rows need 6×3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textual==8.2.8
cat > "$folder/table.py" <<'PYTHON'
import asyncio
import sys

from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.geometry import Size
from textual.message import Message
from textual.widgets import DataTable, Static


class Rows(DataTable[str]):
    class Show(Message):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

    async def on_rows_show(self, message: Show) -> None:
        self.add_column("name")
        self.add_rows([["one"], ["two"]])
        self.display = True
        self.app.query_one(Static).display = False
        if message.seconds:
            await asyncio.sleep(message.seconds)


class Tables(App[None]):
    CSS = "Vertical, Rows { height: auto; } Rows { display: none; }"

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static("reading")
            yield Rows()


async def sizes(seconds: float) -> tuple[Size, Size]:
    app = Tables()
    async with app.run_test() as pilot:
        table = app.query_one(Rows)
        table.post_message(Rows.Show(seconds))
        await pilot.pause(3)
        return table.size, table.virtual_size


async def main() -> bool:
    found = []
    for name, seconds in (("no await", 0), ("an await after it", 1)):
        size, needed = await sizes(seconds)
        print(f"{name}: the table's size is {size.width}×{size.height}, its rows need {needed.width}×{needed.height}")
        found.append(size.height)
    return found == [3, 0]


sys.exit(not asyncio.run(main()))
PYTHON
"$folder/venv/bin/python" "$folder/table.py"
