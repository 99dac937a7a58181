#!/usr/bin/env bash
# textual 8.2.8: Screen.dismiss called twice on one screen closes the screen below it too.
#
# Expected: the second call on a screen that is closing does nothing, or raises. Seen: `dismiss` pops whichever screen is on top,
# so a confirmation that gets two Enters before the next paint takes the screen below with it; with one screen left it raises.
# Here: every screen closes once (tui_llm's BaseScreen; tests/tui/test_closing.py sends each closing key twice).
#
# Output seen:
#   before: ['Screen', 'Editor', 'Question']
#   after two calls of Question.dismiss: ['Screen']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textual==8.2.8
cat > "$folder/twice.py" <<'PYTHON'
import asyncio
import sys

from textual.app import App, ComposeResult
from textual.screen import ModalScreen, Screen
from textual.widgets import Label


class Editor(Screen[None]):
    def compose(self) -> ComposeResult:
        yield Label("a text")


class Question(ModalScreen[bool]):
    BINDINGS = [("enter", "yes", "Yes")]

    def compose(self) -> ComposeResult:
        yield Label("save?")

    def action_yes(self) -> None:
        self.dismiss(True)


async def main() -> int:
    app = App[None]()
    async with app.run_test() as pilot:
        await app.push_screen(Editor())
        question = Question()
        await app.push_screen(question)
        await pilot.pause()
        print("before:", [type(screen).__name__ for screen in app.screen_stack])
        question.action_yes()  # Enter, and Enter again before the first one has been painted
        question.action_yes()
        await pilot.pause()
        left = [type(screen).__name__ for screen in app.screen_stack]
        print("after two calls of Question.dismiss:", left)
        return 0 if "Editor" not in left else 1


sys.exit(asyncio.run(main()))
PYTHON
"$folder/venv/bin/python" "$folder/twice.py"
