"""The help screen: it opens with the keys and the numbers of where one is, and can be searched."""

from __future__ import annotations

import re

import pytest
from helpers import answered, drawn, make_app, until

from tui_llm.tui import keymap
from tui_llm.tui.app import LabApp
from tui_llm.tui.glossary import TERMS, terms_at
from tui_llm.tui.help import NUMBERS, HelpLines, HelpScreen
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.command import key_text


def text(app: LabApp) -> str:
    return "\n".join(line.plain for line in app.screen.query_one(HelpLines)._lines)


def test_each_term_is_said_once_and_names_real_places() -> None:
    names = [term.name for term in TERMS]
    assert len(names) == len(set(names))
    scopes = {command.scope for command in keymap.COMMANDS}
    for term in TERMS:
        assert set(term.places) <= scopes, term.name
        assert not re.search(r"\bprobability\b", term.name) and term.meaning[0] != " "


NO_NUMBERS = {"lab", "app", "help", "pairs_form", "log"}  # all that their screens show is text and keys


@pytest.mark.parametrize("place", sorted({command.scope for command in keymap.COMMANDS} - NO_NUMBERS))
def test_every_place_with_numbers_has_terms(place: str) -> None:
    assert terms_at(place)


@pytest.mark.parametrize(
    ("keys", "group", "term"),
    [("1", "Tokens", "surprisal"), ("2", "Logits", "raw p"), ("3", "Loss", "p − y"), ("4", "Training", "MFU"),
     ("5", "Generate", "u"), ("1 A", "Inside", "effective tokens"), ("m", "Models", "parameters"), ("R", "Runs", "epoch"),
     ("5 T", "Tree", "p of the path"), ("3 L", "Learn this", "gradient norm"), ("Q", "Guess", "your bet"),
     ("ampersand escape", "Compare models", "total variation")],
)  # fmt: skip
async def test_help_opens_at_the_keys_and_numbers_of_where_one_is(keys: str, group: str, term: str) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", *keys.split())
        await pilot.pause()
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen) and app.screen.query(HelpLines))
        await pilot.pause()
        first, _, rest = text(app).partition(f"\n{NUMBERS}  {group}\n")
        assert first.splitlines()[0] == group  # its keys are at the top
        here = rest.partition("\n\n")[0]
        assert term in here
        await pilot.press("w")
        await pilot.pause()
        assert any(NUMBERS in line for line in drawn(app))


async def test_what_is_this_number_shows_the_focused_row() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "2", "down")
        await pilot.pause()
        pane = app.lab_screen.panes.logits
        assert pane.cursor is not None
        row = pane.row(pane.cursor, pane.line_width, selected=True).plain
        await pilot.press("question_mark", "w")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.pause()
        assert row.split()[:3] == text(app).partition(NUMBERS)[2].splitlines()[2].split()[:3]


async def test_the_help_can_be_searched() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))

        async def seek(words: str) -> None:
            await pilot.press("slash")
            await until(pilot, lambda: isinstance(app.screen, AskScreen))
            await pilot.press(*words, "enter")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            await pilot.pause()

        await seek("MERGE")
        lines = app.screen.query_one(HelpLines)
        seen = []
        for key in ("n", "n", "N", "N"):
            assert "merge" in text(app).splitlines()[lines.scroll_offset.y].casefold() or lines.scroll_offset.y
            seen.append(str(lines.border_subtitle).partition(" ·")[0])
            await pilot.press(key)
            await pilot.pause()
        count = len(lines._hits())
        assert count > 3 and seen == [f"{at} of {count}" for at in (1, 2, 3, 2)]
        await seek("xyzzy")
        assert "no match for 'xyzzy'" in str(lines.border_subtitle)


async def test_help_while_typing_lists_the_prompts_keys_first() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.pause()
        assert text(app).startswith("Prompt\n")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_no_name_runs_into_its_meaning(size: tuple[int, int]) -> None:
    names = [(term.name, term.meaning) for term in TERMS]
    names += [(", ".join(map(key_text, command.keys.split(","))), command.tooltip) for command in keymap.COMMANDS]
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "4", "question_mark", "w")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen) and app.screen.query_one(HelpLines)._entries)
        shown, lines = app.screen.query_one(HelpLines), text(app).splitlines()
        for at, words in shown._entries:
            name = max((name for name, meaning in names if words.startswith(f"{name} {meaning}".casefold())), key=len)
            rest = lines[at].strip()[len(name) :]
            assert rest == "" or rest.startswith("  "), lines[at]
            first = rest or lines[at + 1]
            assert words[len(name) + 1 :].startswith(first.split()[0].casefold())  # the meaning, from its first word
        assert len(shown._entries) > len(names)
        # As it is drawn, too: the longest name on a line of its own, its meaning below.
        shown.scroll_to(y=next(at for at, line in enumerate(lines) if "reward(chosen)" in line), animate=False)
        await until(pilot, lambda: any("reward(chosen), reward(rejected)  " in line for line in drawn(app)))
