#!/usr/bin/env bash
# textual 8.2.8: an OptionList whose content is exactly as wide as its options' padding raises ValueError when it measures them.
#
# Expected: with no column left for the text, an option has one line or none; so it is where the list is narrower still. Seen: an
# exception from rich (`chop_cells` divides a line into pieces of 0 columns), which ends the app. `OptionList._update_lines` looks
# whether the list has any room, but subtracts the padding of the options after that. The command palette pads its options.
# Here: `wrap_and_format` of tui_llm/tui/kit/textual_private.py; tests/tui/test_closing_keys.py.
#
# Output seen:
#   3 columns, padding 2: fine
#   2 columns, padding 2: ValueError: range() arg 3 must not be zero
#   1 column, padding 2: fine
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textual==8.2.8 rich==15.0.0
cat > "$folder/narrow.py" <<'PYTHON'
import asyncio
import sys

from textual.app import App, ComposeResult
from textual.widgets import OptionList


class Narrow(App[None]):
    CSS = """
    OptionList { border: none; padding: 0; height: 5; scrollbar-size: 0 0; }
    OptionList > .option-list--option { padding: 0 1; }
    """

    def compose(self) -> ComposeResult:
        yield OptionList("one two", "three")


async def shown(width: int) -> str:
    try:
        async with Narrow().run_test(size=(width, 10)) as pilot:
            await pilot.pause()
    except ValueError as error:
        return f"ValueError: {error}"
    return "fine"


async def main() -> bool:
    found = [await shown(width) for width in (3, 2, 1)]
    for width, seen in zip((3, 2, 1), found, strict=True):
        print(f"{width} column{'s' * (width != 1)}, padding 2: {seen}")
    return found == ["fine", "ValueError: range() arg 3 must not be zero", "fine"]


sys.exit(not asyncio.run(main()))
PYTHON
"$folder/venv/bin/python" "$folder/narrow.py" 2>/dev/null
