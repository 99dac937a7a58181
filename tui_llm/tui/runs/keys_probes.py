"""The commands of pinned prompts: pinning, and the screen that shows how they were learned."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command

GROUP = "How it learned"


def _learned(
    id: str, keys: str, label: str, tooltip: str, action: str, together: str = "", foot: bool = True
) -> Command:
    return Command(id, keys, label, tooltip, GROUP, "learned", action, ("learned",) if foot else (), together=together)


PINNING_COMMANDS: tuple[Command, ...] = (
    Command(
        "how_it_learned",
        "h",
        "how it learned",
        "See how the watched run learned the pinned prompts; list and remove pins",
        "Training",
        "training",
        "how_it_learned",
        ("training",),
    ),
    Command(
        "pin",
        "P",
        "pin",
        "Pin the prompt and target shown now, or unpin them: runs read pinned prompts at every evaluation",
        "Training",
        "lab",
        "pin",
        ("loss", "training"),
    ),
)

PROBE_COMMANDS: tuple[Command, ...] = (
    _learned("leave_learned", "escape,q,h", "back", "Back to the five panes", "leave"),
    _learned("earlier_moment", "left", "earlier", "Go to the evaluation before", "scrub(-1)", "moment"),
    _learned("later_moment", "right", "later", "Go to the next evaluation; after the last one, stay with the newest", "scrub(1)", "moment"),
    _learned("much_earlier_moment", "shift+left", "much earlier", "Go ten evaluations back", "scrub(-10)", foot=False),
    _learned("much_later_moment", "shift+right", "much later", "Go ten evaluations on", "scrub(10)", foot=False),
    _learned("first_moment", "home", "first", "Go to step 0, the model before any training", "scrub_to(0)", foot=False),
    _learned("last_moment", "end", "newest", "Go to the newest evaluation and stay with it", "scrub_to(-1)", foot=False),
    _learned("mark_moment", "space", "mark", "Mark this moment: the table shows what changed from it to others; again: unmark", "mark"),
    _learned("previous_pin", "up,shift+tab", "previous pin", "Choose the pin above", "choose(-1)", "pin"),
    _learned("next_pin", "down,tab", "next pin", "Choose the pin below", "choose(1)", "pin"),
    _learned("pin_listed", "P,delete", "pin/unpin", "Unpin the chosen prompt (what was read of it stays), or pin it again", "pin"),
    _learned("log_probability", "l", "log", "Make the axis logarithmic, or linear again", "log_axis"),
    _learned("copy_learned", "y", "copy", "Copy the table (tab-separated)", "copy"),
    _learned("table_up", "pageup", "table up", "Scroll the table up", "page(-1)", foot=False),
    _learned("table_down", "pagedown", "table down", "Scroll the table down", "page(1)", foot=False),
)  # fmt: skip
