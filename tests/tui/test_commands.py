"""Each command is defined once: keys, footer, palette and help are generated from it."""

from __future__ import annotations

from collections import Counter

from helpers import answered, drawn, make_app

from tui_llm.tui import keymap
from tui_llm.tui.app import CommandProvider
from tui_llm.tui.help import HelpLines
from tui_llm.tui.kit import command as kit_command

OWNED = {"ctrl+m", "ctrl+j", "ctrl+h", "ctrl+i", "ctrl+enter", "shift+enter", "ctrl+z", "ctrl+s", "ctrl+b"}


def test_ids_and_keys_are_unique_where_they_apply() -> None:
    assert max(Counter(command.id for command in keymap.COMMANDS).values()) == 1
    keys = Counter((command.scope, key) for command in keymap.COMMANDS for key in command.keys.split(","))
    assert max(keys.values()) == 1


def test_no_key_that_terminals_own() -> None:
    for command in keymap.COMMANDS:
        if command.scope in ("app", "lab", "prompt", *kit_command.PANES):
            assert not OWNED & set(command.keys.split(","))


async def test_every_action_exists() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        nodes = {
            "app": app,
            "lab": lab,
            "prompt": lab.prompt,
            **{name: lab.pane(name) for name in kit_command.PANES},
        }
        for command in keymap.COMMANDS:
            if command.scope not in nodes:
                continue
            name = command.action.split("(")[0]
            node = nodes[command.scope]
            if "." in name:
                node, name = {"app": app, "screen": lab}[name.split(".")[0]], name.split(".")[1]
            assert hasattr(node, f"action_{name}"), command
            assert command.id in {binding.id for _, binding in nodes[command.scope]._bindings}, command


async def test_help_and_palette_show_every_command() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        provider = CommandProvider(app.screen)
        found = {hit.help async for hit in provider.discover()}
        assert {command.tooltip for command in keymap.COMMANDS if command.scope in ("app", "lab")} <= found
        await pilot.press("f1")
        await pilot.pause()
        text = "\n".join(line.plain for line in app.screen.query_one(HelpLines)._lines)
        for command in keymap.COMMANDS:
            assert kit_command.key_text(command.keys) in text
            assert command.tooltip.split()[0] in text


async def test_footer_follows_the_focus() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        assert "Esc done typing" in drawn(app)[-1]
        await pilot.press("escape", "1")
        await pilot.pause()
        assert "vocabulary" in drawn(app)[-1] and "q quit" in drawn(app)[-1]
        await pilot.press("5")
        await pilot.pause()
        assert "[ ] temperature" in drawn(app)[-1]


async def test_a_key_in_the_footer_can_be_clicked() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "1")
        await pilot.pause()
        at = drawn(app)[-1].index("zoom")
        await pilot.click("#keys", offset=(at, 0))
        await pilot.pause()
        assert lab.zoomed
