"""Tokens coloured and marked by how much their log-probability changed: ▲ up, ▼ down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.style import Style
from rich.text import Text

from tui_llm.common.display import visible, visible_token
from tui_llm.facts.tokens import Token
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import packed, wrapped

MOVED = 0.05  # nats: a token's change is marked from here on
_MARKS = {"good": "▲", "bad": "▼"}
Styles = Callable[[str], Style]


def changed_tokens(
    tokens: Iterable[Token], logs: Iterable[tuple[float, float]], width: int, style: Styles, *, numbers: bool
) -> list[Text]:
    """The tokens as text in lines of `width` cells, from ln p before and after; with `numbers`, each with its change."""
    parts = []
    for token, (before, after) in zip(tokens, logs, strict=True):
        change = after - before
        name = "good" if change >= MOVED else "bad" if change <= -MOVED else "muted"
        if numbers:
            parts.append(Text(f"{visible_token(token.text)} {fmt.signed(change)}", style(name), no_wrap=True))
        else:
            parts.append(Text(visible(token.text) + _MARKS.get(name, ""), style(name)))
    return flow(parts, width, numbers=numbers)


def flow(parts: Sequence[Text], width: int, *, numbers: bool) -> list[Text]:
    """Tokens one after the other as a text; with numbers, apart."""
    if numbers:
        return packed(parts, width, "  ")
    text = Text()
    for part in parts:
        text.append_text(part)
    return wrapped(text, width)
