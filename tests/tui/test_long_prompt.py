"""A pasted line of 4,000 characters: with spaces, without, of wide or of combining characters."""

from __future__ import annotations

import pytest
from helpers import answered, drawn, make_app, unsafe, until
from rich.cells import cell_len
from textual import events

LINES = {
    "words": "the cat sat on a mat " * 190,
    "one word": "a" * 4000,
    "wide": "猫" * 4000,
    "combining": "e\u0301" * 2000,
    "joined": "👩\u200d👩\u200d👧" * 800,
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
async def test_a_long_line_fits_into_every_pane(line: str) -> None:
    app = make_app(prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.prompt.focus()
        lab.prompt.post_message(events.Paste(line))
        await until(pilot, lambda: lab.lab.prompt == line)
        await answered(pilot, lab)
        await pilot.press("escape")
        for pane in "12345":
            await pilot.press(pane)
            await pilot.pause()
            assert {cell_len(row) for row in drawn(app)} == {80} and len(drawn(app)) == 24
            assert not unsafe(drawn(app))
