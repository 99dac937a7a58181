"""The commands of the token cursor and of the instruments that take tokens apart."""

from __future__ import annotations

from tui_llm.tui.instruments.keys import LETTERS, MERGES, PAIRS, SWAP, VOCABULARIES
from tui_llm.tui.kit.command import Command

GROUP = "Tokens"

TOGETHER = {"merges_back": "merge", "merges_on": "merge", "merges_word_back": "word", "merges_word_on": "word"}
LESS = ("swap", "vocabularies", "letters", "pairs")  # in a narrow footer they give way


def _tokens(
    id: str, keys: str, label: str, tooltip: str, action: str, together: str = "", foot: bool = True
) -> Command:
    place = ("tokens",) if foot else ()
    return Command(
        id,
        keys,
        label,
        tooltip,
        GROUP,
        "tokens",
        f"screen.{action}",
        place,
        importance=-1 if id in LESS else 0,
        together=together,
    )


def _full(
    scope: str, group: str, id: str, keys: str, label: str, tooltip: str, action: str, foot: bool = True
) -> Command:
    return Command(
        f"{scope}_{id}",
        keys,
        label,
        tooltip,
        group,
        scope,
        action,
        (scope,) if foot else (),
        priority=keys in ("home", "end"),  # a list that has something to scroll would take them
        importance=9 if id == "leave" else 0,
        together=TOGETHER.get(f"{scope}_{id}", ""),
    )


def _common(scope: str, group: str, key: str) -> tuple[Command, ...]:
    """What every full screen of this file has."""
    return (
        _full(scope, group, "copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
        _full(scope, group, "leave", f"escape,q,{key}", "back", "Back to the five panes", "leave"),
    )


TOKEN_COMMANDS: tuple[Command, ...] = (
    Command("cursor_back", "comma", "cursor back", "Move the token cursor back: every pane shows the reading before that token", GROUP, "lab", "token_cursor(-1)"),
    Command("cursor_on", "full_stop", "cursor on", "Move the token cursor on; after the last token it is at the end", GROUP, "lab", "token_cursor(1)"),
    _tokens("cursor_left", "left", "left", "Move the token cursor back (, does so in every pane)", "token_cursor(-1)", "cursor"),
    _tokens("cursor_right", "right", "right", "Move the token cursor on (. does so in every pane)", "token_cursor(1)", "cursor"),
    _tokens("cursor_first", "home", "first", "Put the token cursor on the first token", "token_cursor_to(0)", foot=False),
    _tokens("cursor_end", "end", "end", "Put the token cursor at the end again (Esc does too)", "token_cursor_to(-1)", foot=False),
    _tokens("colour_by", "k", "colour", "Colour the tokens by surprisal, rank, probability or entropy, or only apart", "colour_by"),
    _tokens("swap", "S", "swap", "Put another token in the place of the one at the cursor", "swap"),
    _tokens("merges", "M", "merges", "See the word at the cursor become tokens, merge by merge", "merges"),
    _tokens("vocabularies", "C", "compare", "See the text in several vocabularies side by side", "vocabularies"),
    _tokens("letters", "L", "letters", "Count a letter across the tokens that hide it", "letters"),
    _tokens("pairs", "E", "examples", "See the training pairs of the text, each with the model's loss", "pairs"),
    # The full screens
    _full(MERGES, "Merges", "back", "left", "undo a merge", "Go one merge back", "step(-1)"),
    _full(MERGES, "Merges", "on", "right", "next merge", "Make the next merge", "step(1)"),
    _full(MERGES, "Merges", "first", "home", "bytes", "Go to the bytes, before any merge", "step_to(0)", foot=False),
    _full(MERGES, "Merges", "last", "end", "tokens", "Go to the tokens, after all merges", "step_to(-1)", foot=False),
    _full(MERGES, "Merges", "type", "t", "type a word", "Type a text to see it merged", "type"),
    _full(MERGES, "Merges", "word_back", "comma", "word before", "Go to the word before", "word(-1)"),
    _full(MERGES, "Merges", "word_on", "full_stop", "next word", "Go to the next word", "word(1)"),
    *_common(MERGES, "Merges", "M"),
    *_common(VOCABULARIES, "Side by side", "C"),
    _full(LETTERS, "Letters", "type", "t", "letter", "Type the letter to count", "type"),
    _full(LETTERS, "Letters", "all", "a", "all tokens", "Show all tokens, or only those that hide the letter", "all"),
    *_common(LETTERS, "Letters", "L"),
    *_common(PAIRS, "Training pairs", "E"),
    _full(SWAP, "Swap", "do", "enter", "swap", "Put the token under the cursor there", "swap"),
    _full(SWAP, "Swap", "type", "t", "type", "Type what to put there", "type"),
    _full(SWAP, "Swap", "rest", "r", "rest", "Keep what follows (it is read again), or drop it and let the model go on", "rest"),
    *_common(SWAP, "Swap", "S"),
)  # fmt: skip
