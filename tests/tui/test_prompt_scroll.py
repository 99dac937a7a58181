"""The prompt shows its cursor's line after every change of its text or size, also where the text is longer than the box."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from helpers import answered, make_app, until
from textual import events
from textual.pilot import Pilot

from tui_llm.tui.kit.widgets.prompt import EDITABLE, PromptEditor

LONG = "".join(f"word{number} " for number in range(150))  # more lines than the box has, at each size
LINES = "\n".join(f"line {number}" for number in range(40))

Do = Callable[[Pilot[None], PromptEditor], Awaitable[None]]


async def settled(pilot: Pilot[None]) -> None:
    """Waits for the layout, and for what a resize and a scroll put off until after it."""
    for _ in range(6):
        await pilot.pause()


def seen(prompt: PromptEditor) -> str:
    """Empty if the cursor is drawn, else where it is."""
    inside = prompt.content_region
    return "" if prompt.cursor_screen_offset in inside else f"cursor at {prompt.cursor_screen_offset}, box {inside}"


async def paste(pilot: Pilot[None], prompt: PromptEditor, text: str = LONG) -> None:
    before = prompt.prompt_text
    prompt.post_message(events.Paste(text))
    await until(pilot, lambda: prompt.prompt_text != before)


async def paste_lines(pilot: Pilot[None], prompt: PromptEditor) -> None:
    await paste(pilot, prompt, LINES)


async def paste_a_megabyte(pilot: Pilot[None], prompt: PromptEditor) -> None:
    await paste(pilot, prompt, "x y " * EDITABLE)


async def paste_in_the_middle(pilot: Pilot[None], prompt: PromptEditor) -> None:
    prompt.set_text(LONG, len(LONG) // 2)
    await settled(pilot)
    await paste(pilot, prompt, LINES)


async def narrower(pilot: Pilot[None], prompt: PromptEditor) -> None:
    await pilot.resize_terminal(40, 24)


async def narrower_and_wider(pilot: Pilot[None], prompt: PromptEditor) -> None:
    await pilot.resize_terminal(30, 24)
    await settled(pilot)
    await pilot.resize_terminal(130, 40)


async def lower(pilot: Pilot[None], prompt: PromptEditor) -> None:
    await pilot.resize_terminal(80, 14)


async def typed(pilot: Pilot[None], prompt: PromptEditor) -> None:
    await pilot.press(*"a few words more, that wrap to another line than the last one, and to one more after it")


async def new_lines(pilot: Pilot[None], prompt: PromptEditor) -> None:
    await pilot.press("alt+enter", "alt+enter", "alt+enter")


async def undo(pilot: Pilot[None], prompt: PromptEditor) -> None:
    before = prompt.prompt_text
    await paste(pilot, prompt, LINES)
    await settled(pilot)
    await pilot.press("ctrl+z")
    await until(pilot, lambda: prompt.prompt_text == before)


async def undo_and_redo(pilot: Pilot[None], prompt: PromptEditor) -> None:
    before = prompt.prompt_text
    await undo(pilot, prompt)
    await settled(pilot)
    await pilot.press("ctrl+y")
    await until(pilot, lambda: prompt.prompt_text != before)


async def set_by_the_app(pilot: Pilot[None], prompt: PromptEditor) -> None:
    prompt.set_text(LINES + LONG)


async def delete_all_but_little(pilot: Pilot[None], prompt: PromptEditor) -> None:
    prompt.move_cursor((0, 20))
    await settled(pilot)
    prompt.move_cursor(prompt.document.end, select=True)
    await settled(pilot)
    await pilot.press("backspace")


EVERY: tuple[Do, ...] = (
    paste, paste_lines, paste_a_megabyte, paste_in_the_middle, narrower, narrower_and_wider, lower, typed, new_lines, undo,
    undo_and_redo, set_by_the_app, delete_all_but_little,
)  # fmt: skip


@pytest.mark.parametrize("do", EVERY, ids=lambda do: do.__name__)
@pytest.mark.parametrize("before", ["a short text", LONG, LINES], ids=["short", "full", "lines"])
async def test_the_prompts_cursor_is_in_sight(do: Do, before: str) -> None:
    app = make_app(prompt=before)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await settled(pilot)
        assert not seen(lab.prompt)
        await do(pilot, lab.prompt)
        await settled(pilot)
        assert not seen(lab.prompt), do.__name__
