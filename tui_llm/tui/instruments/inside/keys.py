"""The keys of the screen Inside (attention, logit lens, embedding neighbours), and the one that opens it."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command

ATTENTION, LENS, NEIGHBOURS = VIEWS = ("inside_attention", "inside_lens", "inside_neighbours")


def _own(
    id: str, keys: str, label: str, tooltip: str, action: str, footer: tuple[str, ...] = VIEWS, *,
    priority: bool = False, together: str = "",
) -> Command:  # fmt: skip
    return Command(id, keys, label, tooltip, "Inside", "inside", action, footer, priority, together)


OPEN = Command(
    "inside",
    "A",
    "inside",
    "Open the black box: attention of every head, the prediction after each layer, a token's neighbours",
    "Inside",
    "lab",
    "inside",
    ("tokens",),
)
KEYS = (
    _own("leave_inside", "escape,q", "back", "Back to the five panes", "leave"),
    # Before the lists see them, which would scroll sideways.
    _own("inside_left", "left", "token", "Look from the token before", "token(-1)", priority=True, together="token"),
    _own("inside_right", "right", "token", "Look from the token after", "token(1)", priority=True, together="token"),
    _own("inside_first", "home", "first", "Look from the text's first token", "token_end(0)", (), priority=True),
    _own("inside_last", "end", "last", "Look from the text's last token", "token_end(-1)", (), priority=True),
    _own(
        "inside_head_left", "left_square_bracket", "head", "The head before; ↑ and ↓ choose the layer", "head(-1)",
        (ATTENTION,), together="head",
    ),
    _own(
        "inside_head_right", "right_square_bracket", "head", "The next head; ↑ and ↓ choose the layer", "head(1)",
        (ATTENTION,), together="head",
    ),
    _own(
        "inside_measure", "m", "measure",
        "What the grid shows of each head: its largest weight, or the one on the first token, on the one before, on itself, "
        "or its effective number of tokens", "measure", (ATTENTION,),
    ),
    _own("inside_go", "enter", "go", "Go on to the neighbours of the token under the cursor", "go", (NEIGHBOURS,)),
    _own("inside_return", "backspace", "return", "Go back to the token before", "go_back", (NEIGHBOURS,)),
    _own("inside_search", "slash", "search", "See the neighbours of a token that you type, or of an id: #464", "search",
         (NEIGHBOURS,)),
    _own("inside_attention", "a,1", "attention", "Which earlier tokens each head looked at", "view('attention')",
         (LENS, NEIGHBOURS)),
    _own("inside_lens", "l,2", "lens", "What the model would predict after each layer", "view('lens')",
         (ATTENTION, NEIGHBOURS)),
    _own("inside_neighbours", "n,3", "neighbours", "Which tokens' embeddings point the same way as the token's",
         "view('neighbours')", (ATTENTION, LENS)),
    _own("inside_copy", "y", "copy", "Copy the view as a table (tab-separated)", "copy"),
    _own("inside_theme", "d", "dark/light", "Switch between a dark and a light theme", "app.switch_theme", ()),
    _own("inside_help", "question_mark", "help", "Show all keys and what the numbers mean", "app.show_help"),
)  # fmt: skip
