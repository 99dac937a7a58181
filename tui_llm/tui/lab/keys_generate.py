"""The commands of the Generate pane: steps, undo and redo, ghost text."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command

UNDO_COMMANDS: tuple[Command, ...] = (
    Command("undo", "u", "undo", "Take back the last change of the text, typed or drawn: the line under the prompt says what goes (ctrl+z while typing)", "Text", "lab", "undo_text", ("generate",)),
    Command("redo", "U", "redo", "Make the change again that was taken back (ctrl+y while typing)", "Text", "lab", "redo_text"),
)  # fmt: skip

GHOST_COMMANDS: tuple[Command, ...] = (
    Command("ghost_token", "right", "take a token", "At the end of the text: take a token of the ghost text, what the model would most likely go on with", "Prompt", "prompt", "ghost_token"),
    Command("ghost_word", "alt+right,alt+f", "take a word", "At the end of the text: take a word of the ghost text", "Prompt", "prompt", "ghost_word"),
    Command("ghost_all", "end,ctrl+e", "take all", "At the end of the text: take all of the ghost text", "Prompt", "prompt", "ghost_all"),
    Command("ghost", "G", "ghost text", "Show the likeliest continuation dim behind the prompt while you type, or don't", "Prompt", "lab", "ghost"),
)  # fmt: skip

GENERATE_COMMANDS: tuple[Command, ...] = (
    Command("earlier_step", "left", "earlier", "See how the token before was chosen", "Generate", "generate", "step(-1)", ("generate",), together="step"),
    Command("later_step", "right", "later", "See how the next token was chosen", "Generate", "generate", "step(1)", ("generate",), together="step"),
    Command("the_draw", "D", "the draw", "See u land on the cumulative distribution, and what it picks under other settings", "Generate", "generate", "the_draw", ("generate",), importance=1),
    Command("draw_many", "H", "draw many", "Draw the next token many times: how often each comes, beside how often it should", "Generate", "generate", "draw_many", ("generate",)),
)  # fmt: skip
