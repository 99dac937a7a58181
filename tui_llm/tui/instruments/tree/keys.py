"""The keys of the tree of continuations."""

from __future__ import annotations

from tui_llm.tui.kit.command import WAY_OUT, CommandFactory

_tree = CommandFactory("tree", "Tree")
KEYS = (
    _tree("close_tree", "escape,q", "back", "Stop growing; otherwise back to the five panes, the tree is kept", "close", importance=WAY_OUT),
    # Before the list sees them, which would scroll.
    _tree("tree_in", "right,enter", "in", "Go to the likeliest child; if there is none, add the k likeliest", "enter", together="move", priority=True, importance=6),
    _tree("tree_out", "left", "out", "Go to the parent", "out", together="move", priority=True, importance=6),
    _tree("tree_above", "up", "sibling above", "Go to the likelier sibling (from the first: the line above)", "sibling(-1)", together="move", priority=True, importance=6),
    _tree("tree_below", "down", "sibling below", "Go to the less likely sibling (from the last: the line below)", "sibling(1)", together="move", priority=True, importance=6),
    _tree("tree_line_above", "k", "line above", "Go to the line above, at any depth", "line(-1)", footer=()),
    _tree("tree_line_below", "j", "line below", "Go to the line below, at any depth", "line(1)", footer=()),
    _tree("tree_expand", "e", "expand", "Add the k likeliest tokens after the one under the cursor; 1 to 9 set k", "expand", importance=5),
    _tree("tree_grow", "E", "grow", "Grow the whole branch to the depth, likeliest paths first, within the bounds below; Esc stops", "grow", importance=5),
    *(_tree(f"tree_k_{k}", str(k), f"k = {k}", f"Set k, the number of likeliest tokens that e adds, to {k}", f"count({k})", footer=()) for k in range(1, 10)),
    _tree("tree_deeper", "plus,equals_sign", "depth", "Increase the depth by one token, for growing and drawing", "depth(1)", together="depth", importance=1),
    _tree("tree_shallower", "minus", "depth", "Decrease the depth by one token, for growing and drawing", "depth(-1)", together="depth", importance=1),
    _tree("tree_likelier", "greater_than_sign", "least p", "Multiply the least path probability by ten: only likelier paths grow", "least(1)", together="least p", importance=1),
    _tree("tree_rarer", "less_than_sign", "least p", "Divide the least path probability by ten: less likely paths grow too", "least(-1)", together="least p", importance=1),
    _tree("tree_budget", "b", "budget", "Set how many tokens growing may add: 100, 1,000, 10,000, 100,000", "budget"),
    _tree("tree_draw", "g", "draw", "Draw one token after this one, with the sampler's settings and the next seed", "draw(1)", importance=4),
    _tree("tree_draw_branch", "space", "draw branch", "Draw a branch as long as the depth, with the next seed", "draw(0)"),
    _tree("tree_prune", "x,delete", "prune", "Prune this branch; u restores it", "prune", importance=3),
    _tree("tree_undo", "u", "undo", "Restore the branch that was pruned last", "undo", importance=2),
    _tree("tree_fold", "z", "fold", "Collapse or expand the branch below this token", "fold"),
    _tree("tree_name", "n", "name", "Name the path to this token", "name"),
    _tree("tree_put", "a", "into text", "Append this path to the text, as exactly its tokens, and go back to the panes", "put", importance=8),
    _tree("tree_save", "w", "save", "Write the tree to a JSON file", "save", importance=2),
    _tree("tree_open", "o", "open", "Open a tree from a JSON file", "open_file", importance=2),
    _tree("tree_copy", "y", "copy", "Copy the lines that are shown as a table (tab-separated)", "copy"),
    _tree("tree_theme", "d", "dark/light", "Switch between a dark and a light theme", "app.switch_theme", footer=()),
)  # fmt: skip
