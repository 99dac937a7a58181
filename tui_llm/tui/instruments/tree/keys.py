"""The keys of the tree of continuations."""

from __future__ import annotations

from tui_llm.tui.kit.command import CommandFactory

_tree = CommandFactory("tree", "Tree")
KEYS = (
    _tree("leave_tree", "escape,q", "back", "Stop growing; or go back to the five panes, the tree stays", "leave", importance=7),
    # Before the list sees them, which would scroll.
    _tree("tree_in", "right,enter", "in", "Into the likeliest child; where there is none, ask for the k likeliest", "enter", together="way", priority=True, importance=6),
    _tree("tree_out", "left", "out", "Back to the parent", "out", together="way", priority=True, importance=6),
    _tree("tree_above", "up", "sibling above", "The likelier sibling: choose otherwise (past the first, the line above)", "sibling(-1)", together="way", priority=True, importance=6),
    _tree("tree_below", "down", "sibling below", "The less likely sibling (past the last, the line below)", "sibling(1)", together="way", priority=True, importance=6),
    _tree("tree_line_above", "k", "line above", "The line above, whatever its depth", "line(-1)", footer=()),
    _tree("tree_line_below", "j", "line below", "The line below, whatever its depth", "line(1)", footer=()),
    _tree("tree_expand", "e", "expand", "Add the k likeliest tokens after the one under the cursor; 1 to 9 set k", "expand", importance=5),
    _tree("tree_grow", "E", "grow", "Expand all of the branch to a depth, likeliest ways first, within the bounds below; Esc stops", "grow", importance=5),
    *(_tree(f"tree_k_{k}", str(k), f"k = {k}", f"Expand by the {k} likeliest", f"count({k})", footer=()) for k in range(1, 10)),
    _tree("tree_deeper", "plus,equals_sign", "depth", "Grow, and draw, a token deeper", "depth(1)", together="depth", importance=1),
    _tree("tree_shallower", "minus", "depth", "Grow, and draw, a token less deep", "depth(-1)", together="depth", importance=1),
    _tree("tree_likelier", "greater_than_sign", "least p", "Grow only ways that are likelier: ten times the least path probability", "least(1)", together="least p", importance=1),
    _tree("tree_rarer", "less_than_sign", "least p", "Grow less likely ways too: a tenth of the least path probability", "least(-1)", together="least p", importance=1),
    _tree("tree_budget", "b", "budget", "How many new tokens growing may add: 100, 1,000, 10,000, 100,000", "budget"),
    _tree("tree_draw", "g", "draw", "Draw one token after this one, with the sampler's settings and the next seed", "draw(1)", importance=4),
    _tree("tree_draw_branch", "space", "draw branch", "Draw a branch as long as the depth, with the next seed", "draw(0)"),
    _tree("tree_prune", "x,delete", "prune", "Take this branch away; u puts it back", "prune", importance=3),
    _tree("tree_undo", "u", "undo", "Put back the branch that was pruned last", "undo", importance=2),
    _tree("tree_fold", "z", "fold", "Hide what is below this token, or show it", "fold"),
    _tree("tree_name", "n", "name", "Give this token's way a name", "name"),
    _tree("tree_put", "a", "into text", "Put this way into the text, as the very tokens it is made of, and go back to the panes", "put", importance=8),
    _tree("tree_save", "w", "save", "Write the tree to a JSON file", "save", importance=2),
    _tree("tree_open", "o", "open", "Open a tree from a JSON file", "open_file", importance=2),
    _tree("tree_copy", "y", "copy", "Copy the lines that are shown as a table (tab-separated)", "copy"),
    _tree("tree_theme", "d", "dark/light", "Switch between a dark and a light theme", "app.switch_theme", footer=()),
    _tree("tree_help", "question_mark", "help", "Show all keys and what the numbers mean", "app.show_help", importance=9),
)  # fmt: skip
