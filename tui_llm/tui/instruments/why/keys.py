"""The keys of the Why screen, and the one that opens it."""

from __future__ import annotations

from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory

OPEN = Command(
    "why",
    "semicolon",
    "why",
    "Why this token: its logit as a sum over embeddings, heads and MLPs, beside the runner-up's",
    "Why this token",
    "lab",
    "app.open('why')",
)
_key = CommandFactory("why", "Why this token")
KEYS = (
    _key("why_open", "enter", "open", "Open the part under the cursor: a head's attention, an MLP's neurons, a token's neighbours", "open"),
    _key("why_back", "comma", "token", "Explain the token before: the token cursor moves back", "token(-1)", together="token"),
    _key("why_on", "full_stop", "token", "Explain the next token; after the last one, the prediction", "token(1)", together="token"),
    _key("why_order", "o", "order", "Order the parts by difference to the rival, by value, or as in the forward pass", "order"),
    _key("why_table", "g", "group", "List every part, or totals by layer, or by kind", "table"),
    _key("why_rival", "r,F", "rival", "Type the token to compare with, or an id such as #464", "rival"),
    _key("why_lower", "right_square_bracket", "rival", "Compare with the next most probable token", "choose_rival(1)", together="next rival"),
    _key("why_higher", "left_square_bracket", "rival", "Compare with a more probable token", "choose_rival(-1)", together="next rival"),
    _key("why_target", "t", "target", "Type the token to explain", "target"),
    _key("why_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_why", "escape,q,semicolon", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip
