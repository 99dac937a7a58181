"""The keys of the screen Inside (attention, logit lens, embedding neighbours), and the one that opens it."""

from __future__ import annotations

from tui_llm.tui.kit.command import WAY_OUT, Command

ATTENTION, LENS, NEIGHBOURS = VIEWS = ("inside_attention", "inside_lens", "inside_neighbours")

TUNED = (
    "Switch between the logit lens and the tuned lens, which has a translator per layer that was fitted to the model"
)


def _own(
    id: str, keys: str, label: str, tooltip: str, action: str, footer: tuple[str, ...] = VIEWS, *,
    priority: bool = False, together: str = "", importance: int = 0,
) -> Command:  # fmt: skip
    return Command(id, keys, label, tooltip, "Inside", "inside", action, footer, priority, together, importance)


OPEN = Command(
    "inside",
    "A",
    "inside",
    "Look inside the model: attention of every head, the prediction after each layer, a token's neighbours",
    "Inside",
    "lab",
    "inside",
    ("tokens",),
)
KEYS = (
    _own("close_inside", "escape,q", "back", "Back to the five panes", "close", importance=WAY_OUT),
    # Before the lists see them, which would scroll sideways.
    _own("inside_left", "left", "token", "Select the previous token", "token(-1)", priority=True, together="token"),
    _own("inside_right", "right", "token", "Select the next token", "token(1)", priority=True, together="token"),
    _own("inside_first", "home", "first", "Select the first token", "token_end(0)", (), priority=True),
    _own("inside_last", "end", "last", "Select the last token", "token_end(-1)", (), priority=True),
    _own(
        "inside_head_left", "left_square_bracket", "head", "Select the previous head; ↑ and ↓ select the layer", "head(-1)",
        (ATTENTION,), together="head",
    ),
    _own(
        "inside_head_right", "right_square_bracket", "head", "Select the next head; ↑ and ↓ select the layer", "head(1)",
        (ATTENTION,), together="head",
    ),
    _own(
        "inside_measure", "m", "measure",
        "Choose what the grid shows of each head: its largest weight, its weight on the first, the previous or the same token, "
        "or its effective number of tokens", "measure", (ATTENTION,),
    ),
    _own("inside_go", "enter", "go", "Show the neighbours of the token under the cursor", "go", (NEIGHBOURS,)),
    _own("inside_return", "backspace", "return", "Go back to the token shown before", "go_back", (NEIGHBOURS,)),
    _own("inside_search", "slash", "search", "Type a token, or an id such as #464, and show its neighbours", "search",
         (NEIGHBOURS,)),
    _own("inside_attention", "a,1", "attention", "Attention: which earlier tokens each head attends to", "view('attention')",
         (LENS, NEIGHBOURS)),
    _own("inside_lens", "l,2", "lens", "Lens: the prediction after each layer", "view('lens')",
         (ATTENTION, NEIGHBOURS)),
    _own("inside_neighbours", "n,3", "neighbours", "Neighbours: the tokens with the most similar embeddings",
         "view('neighbours')", (ATTENTION, LENS)),
    _own("inside_tuned", "u", "tuned", TUNED, "tuned", (LENS,)),
    _own("inside_grid", "g", "grid", "Lens grid: the prediction after each layer, at all tokens", "over('grid')", (LENS,)),
    _own("inside_block", "b", "block", "What one block computes for the token: heads, keys, values, neurons", "over('block')",
         (ATTENTION, LENS), importance=-1),
    _own("inside_backward", "B", "backward", "The backward pass: gradient norms of every matrix and token",
         "over('backward')", (LENS,), importance=-1),
    _own("inside_copy", "y", "copy", "Copy the view as a table (tab-separated)", "copy"),
    _own("inside_theme", "d", "dark/light", "Switch between a dark and a light theme", "app.switch_theme", ()),
)  # fmt: skip
