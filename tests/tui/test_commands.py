"""Each command is declared once, beside its screen: bindings, footer, palette and help are made from it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator

import fake_run
import pytest
from helpers import answered, drawn, make_app, until
from textual.binding import Binding
from textual.dom import DOMNode

from tui_llm import tui
from tui_llm.tui import keymap
from tui_llm.tui.app import CommandProvider
from tui_llm.tui.help import HelpLines
from tui_llm.tui.instruments import merges
from tui_llm.tui.kit import command as kit_command
from tui_llm.tui.runs import samples
from tui_llm.tui.state.openers import Opener

# What a terminal can't tell apart from Enter, Tab or Backspace, doesn't send, or takes itself; tmux's prefix; Textual's copy.
OWNED = {"ctrl+m", "ctrl+j", "ctrl+i", "ctrl+h", "ctrl+enter", "shift+enter", "ctrl+z", "ctrl+b", "ctrl+c"}
FORMS = {"new_run", "new_ladder", "branch", "sampler", "pairs_form"}  # in a form, ctrl+s starts what it describes
WITH_AN_EDITOR = ("lab", "scratch", "pairs_form")
SHADOWS = {
    ("prompt", "escape"),
    ("help", "f1"),
    ("help", "question_mark"),
    ("training", "V"),
    ("training", "asterisk"),
    ("training", "minus"),
    ("training", "plus"),
    ("training", "equals_sign"),
}  # the inner one is meant: leave the editor; close the help that F1 opened; save a checkpoint, where & compares models; zoom; heads of the run


def chains() -> Iterator[tuple[str, ...]]:
    """Scopes whose bindings can be active together, the innermost last."""
    panes = set(kit_command.PANES)
    yield from (("app", "lab", pane) for pane in panes)
    yield from (("app", outer, "prompt") for outer in WITH_AN_EDITOR)
    yield from (("app", scope) for scope in {command.scope for command in keymap.COMMANDS} - panes - {"app", "prompt"})


def test_a_key_is_shown_as_it_stands_on_the_keyboard() -> None:
    assert [command.id for command in keymap.COMMANDS if "_" in command.key_text] == []


def test_ids_are_unique() -> None:
    assert max(Counter(command.id for command in keymap.COMMANDS).values()) == 1


@pytest.mark.parametrize("chain", sorted(chains()))
def test_no_two_commands_that_are_active_together_share_a_key(chain: tuple[str, ...]) -> None:
    active = [command for scope in chain for command in keymap.COMMANDS if command.scope == scope]
    keys = Counter(key for command in active for key in command.keys.split(",") if (chain[-1], key) not in SHADOWS)
    assert [key for key, count in keys.items() if count > 1] == []


def test_no_key_that_terminals_tmux_or_textual_own() -> None:
    for command in keymap.COMMANDS:
        owned = OWNED if command.scope in FORMS else {*OWNED, "ctrl+s"}  # elsewhere it stops a terminal's output
        assert not owned & set(command.keys.split(",")), command


def test_every_key_of_every_module_is_collected() -> None:
    declared: set[str] = set()
    for found in pkgutil.walk_packages(tui.__path__, f"{tui.__name__}."):
        module = importlib.import_module(found.name)
        if module is not keymap:
            for value in vars(module).values():
                group = value if isinstance(value, tuple) else (value,)
                declared |= {one.id for one in group if isinstance(one, kit_command.Command)}
    assert declared == set(keymap.BY_ID)


def test_every_binding_belongs_to_a_command() -> None:
    """A scope's commands are what its widget or screen binds."""
    bound: set[str] = set()
    for found in pkgutil.walk_packages(tui.__path__, f"{tui.__name__}."):
        for kind in vars(importlib.import_module(found.name)).values():
            if isinstance(kind, type) and issubclass(kind, DOMNode) and kind.__module__.startswith(tui.__name__):
                bound |= {one.id for one in vars(kind).get("BINDINGS", ()) if isinstance(one, Binding) and one.id}
    assert bound == set(keymap.BY_ID) - {command.id for command in keymap.OPENING}  # `LabApp` resolves these itself


def test_each_screen_in_the_table_of_openers_has_a_key() -> None:
    asked = {match[1] for one in keymap.COMMANDS if (match := re.fullmatch(r"app\.open\('(\w+)'\)", one.action))}
    assert asked == set(keymap.OPENERS)
    assert {command.action for command in keymap.OPENING} <= {f"app.open('{id}')" for id in keymap.OPENERS}


async def test_a_key_that_only_a_screen_states_opens_it_from_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    key = kit_command.Command("probe", "h", "probe", "Open a probe", "Probe", "lab", "app.open('probe')")
    allowed = [False]
    monkeypatch.setattr(keymap, "OPENING", (key,))
    monkeypatch.setitem(keymap.OPENERS, "probe", Opener(merges.MergesScreen, (lambda _context: allowed[0],)))
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        allowed[0] = True
        await pilot.press("h")  # typed
        assert app.screen is lab and lab.lab.prompt.endswith("h")
        await pilot.press("escape")
        assert key.tooltip in {hit.help async for hit in CommandProvider(app.screen).discover()}
        allowed[0] = False
        await pilot.press("h")
        assert app.screen is lab
        allowed[0] = True
        await pilot.press("h")
        assert type(app.screen) is merges.MergesScreen
        await pilot.press("h", "escape", "h")  # it is a key of the lab only
        assert [type(screen) for screen in app.screen_stack[1:]] == [merges.MergesScreen]


async def test_a_bound_key_does_not_wait_for_the_keymap() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await until(pilot, lambda: "opening" in vars(app))  # imported in a thread
        del app.opening
        await pilot.press("escape", "z", "1", "right_square_bracket")
        assert "opening" not in vars(app)
        await pilot.press("f7")  # bound by nothing
        assert "opening" in vars(app)


async def test_every_action_exists() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        nodes = {
            "app": app,
            "lab": lab,
            "prompt": lab.prompt,
            **{name: lab.panes[name] for name in kit_command.PANES},
        }
        for command in keymap.COMMANDS:
            if command.scope not in nodes:
                continue
            name = command.action.split("(")[0]
            node = nodes[command.scope]
            if "." in name:
                node, name = {"app": app, "screen": lab}[name.split(".")[0]], name.split(".")[1]
            assert hasattr(node, f"action_{name}"), command
            assert command in keymap.OPENING or command.id in {b.id for _, b in nodes[command.scope]._bindings}, command


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


async def test_the_palette_of_a_full_screen_offers_its_own_commands() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        everywhere = {command.tooltip for command in keymap.COMMANDS if command.scope == "app"}
        for screen, keys in (
            (samples.SamplesScreen(fake_run.make("samples", done=20)), samples.KEYS),
            (merges.MergesScreen(app.lab_screen.context), merges.KEYS),
        ):
            app.push_screen(screen)
            await pilot.pause()
            found = {hit.help async for hit in CommandProvider(app.screen).discover()}
            assert found == everywhere | {command.tooltip for command in keys}
            app.pop_screen()
            await pilot.pause()


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
